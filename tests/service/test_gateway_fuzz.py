"""What the gateway does with requests that nobody would write: no crash, no undeclared answer, no growth."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from embedctl.gateway.app import GatewayApp
from embedctl.gateway.keys import Keys
from tests.support.gateways import MODEL, Served, served

EXAMPLES = 12
"""Generated requests per operation, and as many again with one part made invalid."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fuzz"), max_body_mib=0.25, max_texts=64) as found:
        yield found


def test_generated_requests_get_declared_answers(made: Served) -> None:
    load_all_checks()
    document = made.client.get("/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    answers: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        # Which token ids and dimensions the model has is no part of the description, so a request that
        # agrees with it may still be refused.
        skipped = [positive_data_acceptance] if operation.method.upper() == "POST" else []

        def check(case: Any) -> None:
            response = case.call(base_url=made.url)
            answers[response.status_code] += 1
            assert response.status_code < 500
            case.validate_response(response, excluded_checks=skipped)  # noqa: B023

        modes = [GenerationMode.POSITIVE]
        if operation.body or list(operation.iter_parameters()):
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:
            run = settings(
                max_examples=EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            )(given(operation.as_strategy(generation_mode=mode))(check))
            run()
    assert answers[200] > 50 and answers[400] > 50
    assert made.embed("still there?").status_code == 200


GOOD = b'{"model":"bge-m3","input":"a"}'
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"


def request(body: bytes, extra: bytes = b"") -> bytes:
    return HEAD + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


BAD_BYTES = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),
    "only blank lines": b"\r\n" * 64,
    "no version": b"GET /healthz\r\n\r\n",
    "HTTP/9.9": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a lone line feed": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an absolute address": b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path with NUL": b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path of bad UTF-8": b"GET /%ff%fe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path out of the house": b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "an endless header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "a header with a colon missing": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": HEAD + b"Content-Length: ten\r\n\r\n" + GOOD,
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 30\r\n\r\n" + GOOD,
    "length and chunks": HEAD + b"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a huge length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "a compressed body": request(GOOD, b"Content-Encoding: gzip\r\n"),
    "no body": request(b""),
    "no JSON": request(b"hello"),
    "half of JSON": request(GOOD[:-5]),
    "two JSON texts": request(GOOD + GOOD),
    "a byte order mark": request(b"\xef\xbb\xbf" + GOOD),
    "UTF-16": request(GOOD.decode().encode("utf-16")),
    "bad UTF-8": request(b'{"model":"bge-m3","input":"\xff\xfe"}'),
    "a lone surrogate": request(rb'{"model":"bge-m3","input":"\ud800"}'),
    "surrogates the wrong way round": request(rb'{"model":"bge-m3","input":["\udc00\ud800"]}'),
    "a surrogate in UTF-8": request(b'{"model":"bge-m3","input":"\xed\xa0\x80"}'),
    "NUL": request(rb'{"model":"bge-m3","input":"a\u0000b"}'),
    "a list": request(b"[1]"),
    "null": request(b"null"),
    "a deep list": request(b'{"model":"bge-m3","input":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "NaN": request(b'{"model":"bge-m3","input":[NaN]}'),
    "an infinite number": request(b'{"model":"bge-m3","input":[1e999]}'),
    "a huge token id": request(b'{"model":"bge-m3","input":[' + b"9" * 400 + b"]}"),
    "dimensions beyond belief": request(b'{"model":"bge-m3","input":"a","dimensions":1e300}'),
    "an unknown method": b"BREW /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an upgrade": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}


def talk(made: Served, sent: bytes) -> bytes:
    """What comes back for these bytes before the gateway closes; empty when it closes without a word."""
    port = int(made.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        answer = b""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


@pytest.mark.parametrize("sent", BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_bad_bytes_get_a_refusal_or_the_end_of_the_connection(made: Served, sent: bytes) -> None:
    answer = talk(made, sent)
    harmless = (b"healthz HTTP/1.1", b"/v1/models HTTP/1.1")
    if answer:
        status = int(re.match(rb"HTTP/1\.1 (\d{3}) ", answer).group(1))  # type: ignore[union-attr]
        allowed = 200 <= status < 500 if any(part in sent for part in harmless) else 400 <= status < 500
        assert allowed, answer[:300]
    assert made.embed("still there?").status_code == 200


def test_random_bytes_within_a_request_do_not_bring_it_down(made: Served) -> None:
    dice = random.Random(4)
    for _ in range(150):
        sent = bytearray(request(b'{"model":"bge-m3","input":["a","b"],"dimensions":8}'))
        for _ in range(dice.randint(1, 6)):
            sent[dice.randrange(len(sent))] = dice.randrange(256)
        answer = talk(made, bytes(sent))
        assert not answer.startswith(b"HTTP/1.1 5"), (sent, answer[:300])
    assert made.embed("still there?").status_code == 200


async def post(app: GatewayApp, body: bytes) -> int:
    """The status of one request that goes to the application itself, without a socket."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # a client that stays
        raise AssertionError

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/embeddings",
        "raw_path": b"/v1/embeddings",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        "root_path": "",
    }
    await app.asgi(scope, receive, send)
    return status


def test_ten_thousand_requests_leave_nothing_behind(made: Served) -> None:
    """Good and refused ones, by turns: not one object more for every ten of them."""

    async def many(app: GatewayApp, count: int) -> None:
        for number in range(count):
            good = number % 4
            body = {"model": MODEL if good else f"unknown {number}", "input": f"text {number}"}
            assert await post(app, json.dumps(body).encode()) == (200 if good else 404)

    async def run() -> tuple[int, int]:
        app = GatewayApp(made.rig.engine, made.rig.engine.settings.gateway, Keys())
        process = psutil.Process()
        try:
            for _ in range(4096):  # so many latencies the engine remembers
                made.rig.engine.embed(["a"])
            await many(app, 400)
            gc.collect()
            objects, memory = len(gc.get_objects()), process.memory_info().rss
            await many(app, 10_000)
            gc.collect()
            return len(gc.get_objects()) - objects, process.memory_info().rss - memory
        finally:
            app.close()

    objects, memory = asyncio.run(run())
    assert objects < 1000
    assert memory < 16 * 1024**2
