"""Clients that begin a request and never end it, and those that never read an answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from embedctl.gateway import connection, server
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
