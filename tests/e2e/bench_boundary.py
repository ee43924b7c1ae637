"""What one request costs between Engine.embed and the encoder. Not a test: run it by hand.

    python -m tests.e2e.bench_boundary [--device-us 0] [--clients 32]

A real worker process serves a real `FastEncoder` whose tokenizer and device are scripted: the device answers
after `--device-us` microseconds. What is left is the cost of the process boundary, printed stage by stage.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import numpy as np

DIMENSION = 1024
TEXT = "how long may a deposit be kept after the end of a tenancy agreement?"


# The scripted encoder, on either side -----------------------------------------------------------------


@dataclass
class ScriptedTokens:
    texts: Sequence[str]

    def ids(self) -> list[Any]:
        return [np.zeros(19, np.int32) for _ in self.texts]

    def truncated(self) -> list[int]:
        return []


class ScriptedDevice:
    """Answers every batch after a fixed time; the interpreter is free meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.batches = 0

    def stage(self, batch: Any, *, normalize: bool) -> ScriptedBatch:
        self.batches += 1
        return ScriptedBatch(len(batch.lengths), self._seconds)

    def release_memory(self) -> None:
        pass


@dataclass
class ScriptedBatch:
    texts: int
    seconds: float

    done_at: float = 0.0

    def launch(self) -> ScriptedBatch:
        self.done_at = time.perf_counter() + self.seconds
        return self

    def pending(self) -> bool:
        return time.perf_counter() < self.done_at

    def wait(self) -> None:
        left = self.done_at - time.perf_counter()
        if left > 0:
            time.sleep(left)

    def collect(self) -> Any:
        self.wait()
        return np.ones((self.texts, DIMENSION), np.float32)


class ScriptedKind:
    """Stands for a `torch.device`: a GPU, which works by itself."""

    type = "cuda"

    def __str__(self) -> str:
        return "cuda"


def scripted_encoder(seconds: float) -> Any:
    from embedctl.encoder.fast import FastEncoder

    model = SimpleNamespace(
        first_position=0, skipped_id=None, device=ScriptedKind(), dtype="torch.float16",
        dimension=DIMENSION, max_tokens=8192, pooling="cls", normalizes=True,
    )  # fmt: skip
    engine = SimpleNamespace(
        runner=ScriptedDevice(seconds), model=model, attention="scripted", dtype="float16", notes=()
    )
    return FastEncoder(cast(Any, engine), cast(Any, ScriptedTokens), token_budget=8192)


def serve(descriptor: int, seconds: float) -> None:
    """The worker's process: a `WorkerServer` whose load makes the scripted encoder."""
    from embedctl.records import CanaryReport
    from embedctl.worker.channel import Channel
    from embedctl.worker.server import WorkerServer

    class ScriptedServer(WorkerServer):
        def _load(self, options: object) -> Any:
            encoder = scripted_encoder(seconds)
            canary = CanaryReport(True, 0, DIMENSION, 0.0, 1.0, "none")
            return SimpleNamespace(encoder=encoder, notes=(), canary=canary)

    ScriptedServer(Channel(socket.socket(fileno=descriptor))).run()


# Measuring ---------------------------------------------------------------------------------------------


def per_call(call: Callable[[], object], rounds: int = 1500) -> list[float]:
    """The nine deciles of one call, in microseconds."""
    for _ in range(rounds // 5):
        call()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    return statistics.quantiles(taken, n=10)


def tell(label: str, call: Callable[[], object]) -> float:
    tenths = per_call(call)
    print(f"{label:<48} p10 {tenths[0]:7.0f}   p50 {tenths[4]:7.0f}   p90 {tenths[8]:7.0f} µs", flush=True)
    return tenths[4]


def rate(call: Callable[[], object], clients: int, seconds: float = 3.0) -> float:
    """Calls per second of `clients` threads that call one after the other."""
    counts = [0] * clients
    stop = threading.Event()

    def client(number: int) -> None:
        while not stop.is_set():
            call()
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    before, start = sum(counts), time.perf_counter()
    time.sleep(seconds)
    done, taken = sum(counts) - before, time.perf_counter() - start
    stop.set()
    for thread in threads:
        thread.join()
    return done / taken


def bare_round_trip(size: int) -> Callable[[], None]:
    """A socket pair to a process that does nothing but answer `size` bytes to 100: the floor."""
    ours, theirs = socket.socketpair()
    answer = bytes(size)
    if os.fork() == 0:
        ours.close()
        while theirs.recv(4096):
            theirs.send(answer)
        os._exit(0)
    theirs.close()
    question, buffer = bytes(100), bytearray(size)

    def ask() -> None:
        ours.send(question)
        ours.recv_into(buffer, size, socket.MSG_WAITALL)

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device-us", type=float, default=0.0, help="microseconds of the scripted device")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = options.device_us / 1e6
    if options.serve is not None:
        serve(options.serve, seconds)
        return

    from embedctl.backends.base import EmbedRequest
    from embedctl.backends.native import NativeBackend
    from embedctl.progress import CancelToken, silent
    from embedctl.settings import ModelSettings, NativeSettings
    from embedctl.worker import client as worker_client
    from tests.support.engines import rig

    def spawn(connection: socket.socket, log: IO[bytes], *_: object) -> subprocess.Popen[bytes]:
        here = [sys.executable, "-m", "tests.e2e.bench_boundary", "--device-us", str(options.device_us)]
        descriptor = connection.fileno()
        return subprocess.Popen(
            [*here, "--serve", str(descriptor)], stdout=log, stderr=log, pass_fds=(descriptor,)
        )

    floor = tell("bare socket, two processes, 4 KiB back", bare_round_trip(4 * DIMENSION))
    setattr(worker_client, "spawn", spawn)  # noqa: B010
    with tempfile.TemporaryDirectory() as name, rig(Path(name), sampling=False) as at:
        backend = NativeBackend(
            NativeSettings(device="cpu"), ModelSettings(), folder=lambda: Path(name), log_dir=Path(name)
        )
        backend.load(silent, CancelToken())
        client = backend._client
        assert client is not None
        texts = [TEXT]
        request = EmbedRequest(texts)
        try:
            tell("ping", client.ping)
            tell("WorkerClient.embed", lambda: client.embed(texts))
            tell("NativeBackend.embed", lambda: backend.embed(request))
            at.engine._lifecycle._backends = {"native": backend}
            whole = tell("Engine.embed", lambda: at.engine.embed(texts, backend="native"))
            many = rate(lambda: at.engine.embed(texts, backend="native"), options.clients)
            plain = rate(lambda: client.embed(texts), options.clients)
        finally:
            backend.close()
    encoder = scripted_encoder(seconds)
    alone = tell("the encoder in this process", lambda: encoder.encode(texts))
    many_alone = rate(lambda: encoder.encode(texts), options.clients)
    print(f"the boundary: {whole - alone:.0f} µs, {(whole - alone) / floor:.1f} times the bare socket")
    print(
        f"{options.clients} clients: Engine.embed {many:.0f} texts/s, WorkerClient.embed {plain:.0f}, "
        f"in this process {many_alone:.0f}: ratio {many / many_alone:.2f}"
    )


if __name__ == "__main__":
    main()
