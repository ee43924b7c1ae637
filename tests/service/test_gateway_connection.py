"""Clients that begin a request and never end it, and those that never read an answer."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest

from embedctl.gateway import connection, open_files, server
from embedctl.gateway.keys import Keys
from embedctl.gateway.server import Gateway
from embedctl.records import EmbedResult
from embedctl.settings import GatewaySettings
from tests.support.fake_engine import FakeEngine
from tests.support.gateways import wait_until

GOOD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class LongAnswers(FakeEngine):
    def embed(self, texts: Any, **_: Any) -> EmbedResult:
        vectors = np.full((len(texts), 1024), 1 / 32, np.float32)
        return EmbedResult(vectors, "native", len(texts), (), (), 0.0, fingerprint="0" * 12)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(connection, "HEAD_S", 0.05)
    monkeypatch.setattr(server, "_KEEP_ALIVE_S", 0.05)
    made = Gateway(LongAnswers(), GatewaySettings(port=0), keys=Keys())
    made.start()
    yield made
    made.stop()


@contextmanager
def connected(gateway: Gateway) -> Iterator[socket.socket]:
    port = int(gateway.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as made:
        yield made


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    return answer


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: local", GOOD + b"GET /he"])
def test_a_head_that_does_not_come_is_not_waited_for(gateway: Gateway, sent: bytes) -> None:
    with connected(gateway) as client:
        client.sendall(sent)
        assert read_all(client).count(b"HTTP/1.1 200 ") == sent.count(GOOD)


def test_the_time_for_a_head_does_not_run_while_the_answer_is_awaited(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 60.0)
    with connected(gateway) as client:
        client.sendall(GOOD + GOOD)
        assert read_all(client).count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("begun", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX"])
def test_a_head_without_an_end_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 60.0)
    with connected(gateway) as client, pytest.raises(ConnectionError):
        client.sendall(begun)
        for _ in range(1000):
            client.sendall(b"x" * 65536)


@pytest.mark.parametrize("head", [GOOD[:-2], GOOD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"])
def test_headers_and_trailers_beyond_measure_are_refused(gateway: Gateway, head: bytes) -> None:
    with connected(gateway) as client:
        client.sendall(head + b"a: b\r\n" * 40_000 + b"\r\n")
        try:
            answer = read_all(client)
        except ConnectionError:  # closed before all was read
            return
    assert b"HTTP/1.1 400 " in answer  # after the trailers, the answer may have been given already


def test_an_answer_that_nobody_reads_is_let_go(gateway: Gateway) -> None:
    body = json.dumps({"model": "embedctl", "input": ["a"] * 1500}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    state = gateway._server.server_state  # type: ignore[union-attr]
    with connected(gateway) as client:
        client.sendall(head + body)
        wait_until(lambda: state.total_requests == 1)
        wait_until(lambda: not state.connections)


def refusal(client: socket.socket, path: bytes) -> tuple[bytes, dict[str, Any]]:
    """The head and the body of the last answer of a connection that is closed after it."""
    client.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % path)
    head, _, body = read_all(client).partition(b"\r\n\r\n")
    return head.lower(), json.loads(body)


def test_connections_beyond_the_limit_are_refused_and_those_within_it_go_on() -> None:
    made = Gateway(FakeEngine(), GatewaySettings(port=0, max_connections=300), keys=Keys())
    made.start()
    state = made._server.server_state  # type: ignore[union-attr]
    try:
        with ExitStack() as many:
            held = [many.enter_context(connected(made)) for _ in range(300)]
            wait_until(lambda: len(state.connections) == 300)
            with connected(made) as one, connected(made) as other, connected(made) as third:
                head, body = refusal(one, b"/v1/embeddings")
                assert head.startswith(b"http/1.1 429 ") and b"\r\nretry-after: 1" in head
                assert body["error"]["code"] == "too_many_connections"
                assert "connections" in refusal(other, b"/api/embed")[1]["error"]
                third.sendall(GOOD[:-2] + b"Connection: close\r\n\r\n")
                assert read_all(third).startswith(b"HTTP/1.1 200 ")
            for client in (held[0], held[299]):
                client.sendall(GOOD)
                assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
            beyond = [many.enter_context(connected(made)) for _ in range(70)]
            assert read_all(beyond[-1]) == b""  # beyond those that may wait to be told
            held[0].close()
            for client in beyond:
                client.close()
            wait_until(lambda: len(state.connections) < 300)
            with connected(made) as late:
                late.sendall(GOOD)
                assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
    finally:
        made.stop()


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "room", "raised_to"),
    [
        (1024, 524_288, 2048, 2560),
        (1024, INFINITY, 2048, 2560),
        (1024, 2000, 1488, 2000),
        (256, 256, 16, 256),
        (65_536, 65_536, 2048, None),
        (INFINITY, INFINITY, 2048, None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_goes(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, room: int, raised_to: int | None
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert open_files.room_for(2048) == room
    assert asked == ([] if raised_to is None else [(raised_to, hard)])


def test_a_limit_of_open_files_that_cannot_be_raised_is_kept_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refused)
    assert open_files.room_for(2048) == 512
