"""Switches under 200 clients, a worker that is killed, and queries beside bulk. Not a test: run it by hand.

    python -m tests.service.load_switch [--clients 200] [--seconds 60] [--every 5]

The demo's engine with its real model, worker and servers, but for one thing: its Ollama serves weights
with a little noise, so that every vector tells which backend it is from. The clients run in a process of
their own and compare each answer with the reference vectors of the backend that it names.

1. Switching back and forth: nothing may fail, be mislabelled or be out of order.
2. The same with a load and an unload at each switch.
3. The worker is killed under load: at most what is in flight fails, with an error that says to try again,
   and then it is back.
4. One query at a time, alone and beside a bulk job: both p95 and their ratio.

Exits with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from embedctl.demo import session
from embedctl.engine import open_engine
from embedctl.engine.facade import EngineFacade
from embedctl.gateway.keys import Keys
from embedctl.gateway.server import Gateway
from embedctl.records import BackendState, JobState
from embedctl.settings import GatewaySettings
from tests.support.gateway_load import under_load

TOPICS = ("cats", "interest rates", "mountains", "compilers", "wine", "the tides", "bridges", "old maps")
TEXTS = [f"What did the report of the year {1900 + n} say about {TOPICS[n % 8]}?" for n in range(128)]
BULK = [" ".join([text] * 4) for text in TEXTS]
NOISE = 0.05
"""Of the word vectors' spread: cosines to the plain model stay above 0.99, and no vector is mistaken."""
TOLERANCE = 1e-4
DEMO_MODEL = "embedctl"
MOST_SLOWER = 3.0
"""What a query's p95 beside bulk may be, times what it is alone."""

_spawn = multiprocessing.get_context("spawn")


def noisy_copy(folder: Path, target: Path) -> Path:
    """A copy of the model's folder whose word vectors have a little noise."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    name = next(key for key in weights if key.endswith("word_embeddings.weight"))
    plain = weights[name]
    noise = np.random.default_rng(4).standard_normal(plain.shape).astype(plain.dtype)
    weights[name] = plain + NOISE * plain.std() * noise
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def clients(
    url: str,
    count: int,
    size: int,
    references: dict[str, np.ndarray],
    digests: dict[str, str],
    stop: Event,
    results: Any,
) -> None:
    """What runs in the clients' process: `count` clients with `size` texts a request until `stop`."""
    place = {text: number for number, text in enumerate(TEXTS)}

    def right(texts: list[str], backend: str, found: np.ndarray) -> bool:
        expected = references[backend][[place[text] for text in texts]]
        return bool(np.abs(found - expected).max() < TOLERANCE)

    def texts(number: int, turn: int) -> list[str]:
        return [TEXTS[(7 * number + 3 * turn + part) % len(TEXTS)] for part in range(size)]

    async def run() -> tuple[dict[str, int], list[str], list[float]]:
        async with under_load(url, count, right, digests, texts=texts, model=DEMO_MODEL) as seen:
            while not stop.is_set():
                await asyncio.sleep(0.05)
        return dict(seen.answers), seen.faults, seen.milliseconds

    results.put(asyncio.run(run()))


def bulk(url: str, stop: Event) -> None:
    """A bulk job: long texts, 256 a request, until `stop`."""
    import httpx

    body = {"model": DEMO_MODEL, "input": BULK * 2, "encoding_format": "base64"}
    with httpx.Client(base_url=url, timeout=120) as client:
        while not stop.is_set():
            client.post("/v1/embeddings", json=body).raise_for_status()


@contextmanager
def under_clients(*arguments: Any) -> Iterator[Callable[[], tuple[dict[str, int], list[str], list[float]]]]:
    """The clients' process; the function that it gives stops it and returns what it saw."""
    stop, results = _spawn.Event(), _spawn.Queue()
    process = _spawn.Process(target=clients, args=(*arguments, stop, results))
    process.start()

    def end() -> tuple[dict[str, int], list[str], list[float]]:
        stop.set()
        found: tuple[dict[str, int], list[str], list[float]] = results.get(timeout=180)
        process.join(30)
        return found

    try:
        yield end
    finally:
        stop.set()
        process.join(30)
        if process.is_alive():
            process.kill()


def switched(engine: EngineFacade, target: str, *, keep_both: bool = True) -> float:
    started = time.monotonic()
    ended = engine.switch(target, keep_both=keep_both).wait(120)
    if ended.state is not JobState.DONE:
        raise SystemExit(f"the switch to {target} ended as {ended.state}: {ended.failure}")
    return time.monotonic() - started


def phase_switches(
    engine: EngineFacade, load: tuple[Any, ...], seconds: float, every: float, *, keep_both: bool
) -> bool:
    with under_clients(*load) as end:
        time.sleep(5)  # until the clients' process has begun
        until, switches = time.monotonic() + seconds, []
        while time.monotonic() < until:
            target = "ollama" if engine.status().active == "native" else "native"
            switches.append(switched(engine, target, keep_both=keep_both))
            time.sleep(max(0.0, every - switches[-1]))
        answers, faults, milliseconds = end()
    how = "both stay loaded" if keep_both else "each time one is loaded and the other unloaded"
    print(
        f"switching, {how}: {len(switches)} switches in {seconds:g} s (slowest {max(switches):.1f} s), "
        f"{sum(answers.values())} right answers {answers}, {len(faults)} faults, "
        f"p50 {np.percentile(milliseconds, 50):.0f} ms, p99 {np.percentile(milliseconds, 99):.0f} ms"
    )
    for fault, count in Counter(faults).most_common(5):
        print(f"  {count} × {fault}")
    return not faults and set(answers) == {"native", "ollama"}


def phase_crashes(engine: EngineFacade, load: tuple[Any, ...]) -> bool:
    if engine.status().active != "native":
        switched(engine, "native")
    with under_clients(*load) as end:
        time.sleep(5)
        back = []
        for _ in range(3):
            for pid in engine.status().backend("native").pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            while engine.status().backend("native").state is BackendState.READY:
                time.sleep(0.01)
            while engine.status().backend("native").state is not BackendState.READY:
                time.sleep(0.05)
            back.append(time.monotonic() - killed)
            time.sleep(3)
        answers, faults, _ = end()
    # Only what was in flight at the moment may be lost to a client.
    most = 3 * engine.settings.gateway.max_in_flight
    retryable = [fault for fault in faults if fault.startswith(("503", "504"))][:most]
    print(
        "crashes: the worker was killed 3 times under load and back after "
        f"{', '.join(f'{b:.1f}' for b in back)} s; {sum(answers.values())} right answers, "
        f"{len(retryable)} errors that say to try again, "
        f"{len(faults) - len(retryable)} other faults"
    )
    for fault, count in Counter(faults).most_common(3):
        print(f"  {count} × {fault}")
    return len(faults) == len(retryable)


def phase_bulk(
    engine: EngineFacade, url: str, references: dict[str, np.ndarray], digests: dict[str, str]
) -> bool:
    good = True
    for backend in ("native", "ollama"):
        if engine.status().active != backend:
            switched(engine, backend)
        found = []
        for busy in (False, True):
            stop = _spawn.Event()
            other = _spawn.Process(target=bulk, args=(url, stop)) if busy else None
            if other:
                other.start()
                time.sleep(4)
            with under_clients(url, 1, 1, references, digests) as end:
                time.sleep(13)
                _, faults, milliseconds = end()
            stop.set()
            if other:
                other.join(60)
            # Without the first quarter: a bulk request that began before the queries runs to its end.
            steady = milliseconds[len(milliseconds) // 4 :]
            found.append((np.percentile(steady, 95), len(steady), len(faults)))
        (idle, n, _), (beside, m, faults_beside) = found
        print(
            f"query p95 on {backend}: alone {idle:.1f} ms (n={n}), beside bulk {beside:.1f} ms (n={m}), "
            f"{beside / idle:.1f}×, {faults_beside} faults"
        )
        good &= beside <= MOST_SLOWER * idle and not faults_beside
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0)
    parser.add_argument("--phases", default="1234", help="which of the four to run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        os.environ["EMBEDCTL_HOME"] = home
        noisy = noisy_copy(session.demo_model_folder(), Path(home) / "noisy")
        plain_start = session.DemoOllama.start
        session.DemoOllama.start = lambda folder, tag, log, references: plain_start(noisy, tag, log)  # type: ignore[method-assign,assignment,misc]
        engine = open_engine(demo=True, recording=False)
        stack.callback(engine.close)
        engine.download().wait(120)
        references, digests = {}, {}
        for name in ("native", "ollama"):
            result = engine.embed(TEXTS, backend=name)
            references[name], digests[name] = np.asarray(result.vectors), str(result.fingerprint)
        apart = np.abs(references["native"] - references["ollama"]).max(axis=1).min()
        print(f"the two backends' vectors differ by at least {apart:.4f}; {TOLERANCE} counts as the same")
        gateway = Gateway(engine, GatewaySettings(port=0, max_waiting=4 * given.clients), keys=Keys())
        stack.callback(gateway.stop)
        url = gateway.start()
        load = (url, given.clients, 2, references, digests)
        good = True
        for phase, keep_both in (("1", True), ("2", False)):
            if phase in given.phases:
                good &= phase_switches(engine, load, given.seconds, given.every, keep_both=keep_both)
        good &= "3" not in given.phases or phase_crashes(engine, load)
        good &= "4" not in given.phases or phase_bulk(engine, url, references, digests)
    return 0 if good and apart > 10 * TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
