"""What the gateway costs above the engine, and how fast it sends vectors. Not a test: run it by hand.

    python -m tests.service.bench_gateway [--demo] [--seconds 3]

The engine answers at once, so that only the way there and back is measured. Overhead: one text by
`Engine.embed` and by the gateway, in random order: the difference of the medians, and the median of what a
request took beside the `Engine.embed` within it. The client is a process of its own
that sends prepared bytes and waits for the answer's last one. Beside it: the least that a Starlette
application costs over the same engine, the gateway asked by Python's own HTTP client in this process, and
the CPU time of this process. A processor that has slept
for milliseconds wakes slowly and with cold caches, so the same code costs more above an engine that takes
a while: hence also above one that sleeps, with a bare exchange of bytes between two threads as the floor.
Rate: requests of 32 texts with 1,024 numbers each, read by a client that parses nothing and by the official
ones; the yardstick is the demo's server over a runner that answers at once, which speaks Ollama's protocol
as Ollama does: one list of numbers as text. With `--demo` the overhead is measured on the demo's real model
too.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedctl.demo.ollama_scheduler import Embedded, ServedModel
from embedctl.demo.ollama_server import OllamaServer
from embedctl.engine.facade import EngineFacade
from embedctl.gateway.keys import Keys
from embedctl.gateway.server import Gateway
from embedctl.records import EmbedResult
from embedctl.settings import GatewaySettings
from tests.support.fake_engine import FakeEngine
from tests.support.lean_client import LeanClient

DIMENSION, BATCH, ROUNDS = 1024, 32, 400
VECTORS = np.random.default_rng(4).standard_normal((BATCH, DIMENSION)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
TEXT = "how long may a deposit be kept after the end of a tenancy agreement?"
TEXTS = [TEXT] * BATCH
PATH = "/v1/embeddings"


class InstantEngine(FakeEngine):
    """Gives the same vectors at once."""

    def embed(self, texts: Any, **_: Any) -> EmbedResult:
        return EmbedResult(
            VECTORS[: len(texts)], "native", 12 * len(texts), (), (), 0.0, fingerprint="0" * 12
        )


class SleepingEngine(InstantEngine):
    """Takes 15 ms, and no processor."""

    def embed(self, texts: Any, **_: Any) -> EmbedResult:
        time.sleep(0.015)
        return super().embed(texts)


class Timed:
    """An engine that remembers how long its last `embed` took, in milliseconds."""

    def __init__(self, engine: EngineFacade) -> None:
        self._engine = engine
        self.last = 0.0

    def embed(self, texts: Any, **named: Any) -> EmbedResult:
        started = time.perf_counter()
        try:
            return self._engine.embed(texts, **named)
        finally:
            self.last = (time.perf_counter() - started) * 1e3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class InstantRunner:
    def __init__(self) -> None:
        self._vectors = [row.tolist() for row in VECTORS]
        self._next = 0

    def too_long(self, text: str) -> bool:
        return False

    def embed(self, text: str) -> Embedded:
        self._next = (self._next + 1) % BATCH
        return Embedded(self._vectors[self._next], 12, False)

    def close(self) -> None:
        pass


class RawClient:
    """Sends one prepared request again and again over one connection, and reads the answers."""

    def __init__(self, url: str, path: str, body: dict[str, Any]) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port))
        self._path = path
        self._body = json.dumps(body).encode()

    def __call__(self) -> bytes:
        self._connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        found = answer.read()
        assert answer.status == 200, found
        return found


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one call."""

    wall: float
    """The median."""
    cpu: float
    """Of this whole process, the mean."""
    beside: float
    """Median of what each call took beside its own `Engine.embed`."""


def costs(*calls: Callable[[], object], timed: Timed | None = None, rounds: int = ROUNDS) -> list[Cost]:
    """What each of several calls costs, made in random order: in a fixed one, each would bear what the call
    before it left behind. A call that returns a number has measured itself."""
    for call in calls * 50:
        call()
    wall: list[list[float]] = [[] for _ in calls]
    beside: list[list[float]] = [[] for _ in calls]
    cpu = [0.0] * len(calls)
    order = list(range(len(calls)))
    shuffle = random.Random(4).shuffle
    for _ in range(rounds):
        shuffle(order)
        for number in order:
            used, started = time.process_time(), time.perf_counter()
            measured = calls[number]()
            passed = (time.perf_counter() - started) * 1e3
            wall[number].append(measured if isinstance(measured, float) else passed)
            beside[number].append(wall[number][-1] - (timed.last if timed else 0.0))
            cpu[number] += (time.process_time() - used) * 1e3
    return [
        Cost(statistics.median(w), c / rounds, statistics.median(b))
        for w, c, b in zip(wall, cpu, beside, strict=True)
    ]


@contextmanager
def echo() -> Iterator[Callable[[], object]]:
    """One byte to a thread and back."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        while piece := theirs.recv(1):
            theirs.sendall(piece)

    def exchange() -> None:
        ours.sendall(b".")
        ours.recv(1)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    with theirs:
        with ours:
            yield exchange
        thread.join(10)


def rate(do: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    do()
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        do()
        count += 1
    return count / passed


@contextmanager
def bare(engine: EngineFacade) -> Iterator[str]:
    """The least that the gateway's framework and server do for one text: read JSON, ask a thread, answer."""
    pool = ThreadPoolExecutor(1)

    async def embeddings(request: Request) -> Response:
        texts = [orjson.loads(await request.body())["input"]]
        result = await asyncio.get_running_loop().run_in_executor(pool, engine.embed, texts)
        return Response(result.vectors.tobytes())

    app = Starlette(routes=[Route(PATH, embeddings, methods=["POST"])])
    # With the protocol named, asyncio sends small packets at once.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    pool.shutdown()


def overhead(title: str, real: EngineFacade) -> None:
    body = {"model": "embedctl", "input": TEXT, "encoding_format": "base64"}
    with ExitStack() as stack:
        engine = Timed(real)
        gateway = Gateway(cast(Any, engine), GatewaySettings(port=0), keys=Keys())
        stack.callback(gateway.stop)
        url = gateway.start()
        lean, framework = (
            stack.enter_context(LeanClient(at, PATH, json.dumps(body)))
            for at in (url, stack.enter_context(bare(cast(Any, engine))))
        )
        # Client and server share this process and its lock: what an application in Python sees at worst.
        asked = RawClient(url, PATH, body)
        direct, *found = costs(lambda: engine.embed([TEXT]), lean, framework, asked, timed=engine)
    print(f"{title}: Engine.embed {direct.wall:.3f} ms; above it in all, and beside each request's own")
    for name, cost in zip(("gateway", "bare Starlette", "gateway, http.client here"), found, strict=True):
        print(
            f"    {name:<28} {cost.wall - direct.wall:6.3f} ms, {cost.beside:6.3f} ms; "
            f"{cost.cpu - direct.cpu:6.3f} ms of CPU here"
        )


def floor() -> None:
    with echo() as exchange:

        def after_sleep() -> None:
            time.sleep(0.015)
            exchange()

        at_once, slept, late = costs(exchange, lambda: time.sleep(0.015), after_sleep, rounds=100)
    print(f"a byte to a thread and back: {at_once.wall:.3f} ms, after 15 ms {late.wall - slept.wall:.3f} ms")


def rates(url: str, ollama_url: str, seconds: float) -> None:
    import ollama
    import openai

    openai_client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    ours, theirs = ollama.Client(url), ollama.Client(ollama_url)
    body = {"model": "bge-m3", "input": TEXTS}

    def by_openai(form: str) -> Callable[[], object]:
        return lambda: openai_client.embeddings.create(
            model="bge-m3", input=TEXTS, encoding_format=cast(Any, form)
        )

    groups: dict[str, dict[str, Callable[[], object]]] = {
        "read only": {
            "Ollama's protocol, demo server": RawClient(ollama_url, "/api/embed", body),
            "gateway, Ollama's API": RawClient(url, "/api/embed", body),
            "gateway, OpenAI's, float": RawClient(
                url, "/v1/embeddings", {**body, "encoding_format": "float"}
            ),
            "gateway, OpenAI's, base64": RawClient(
                url, "/v1/embeddings", {**body, "encoding_format": "base64"}
            ),
        },
        "official clients": {
            "Ollama's protocol, demo server": lambda: theirs.embed("bge-m3", TEXTS),
            "gateway, Ollama's API": lambda: ours.embed("bge-m3", TEXTS),
            "gateway, OpenAI's, float": by_openai("float"),
            "gateway, OpenAI's, base64": by_openai("base64"),
        },
    }
    for group, calls in groups.items():
        found = {name: rate(call, seconds) for name, call in calls.items()}
        base = next(iter(found.values()))
        for name, value in found.items():
            print(
                f"{group:<17} {name:<32} {value:7.1f} requests/s {value * BATCH:8.0f} texts/s "
                f"{value / base:5.1f}×"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--demo", action="store_true", help="measure the overhead on the demo's model too")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each rate")
    given = parser.parse_args()
    model = ServedModel("bge-m3:latest", "0" * 64, 1, "", DIMENSION, 8192, "bert", "float32", {}, ())
    with ExitStack() as stack:
        engine = InstantEngine()
        gateway = Gateway(engine, GatewaySettings(port=0), keys=Keys())
        stack.callback(gateway.stop)
        url = gateway.start()
        yardstick = stack.enter_context(OllamaServer(model, lambda _: InstantRunner()))
        overhead("an engine that answers at once", engine)
        overhead("an engine that sleeps 15 ms", SleepingEngine())
        floor()
        rates(url, yardstick.host, given.seconds)
    if given.demo:
        with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
            os.environ["EMBEDCTL_HOME"] = home
            from embedctl.engine import open_engine

            real = open_engine(demo=True, sampling=False)
            stack.callback(real.close)
            real.download().wait(120)
            real.embed([TEXT])
            overhead("the demo's model, native", real)
    return 0


if __name__ == "__main__":
    sys.exit(main())
