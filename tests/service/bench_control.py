"""Prints how long calls take through the control socket, also as ratios to the shortest one.

Run it by hand, in the project's folder: `PYTHONPATH=. python tests/service/bench_control.py`. The engine is a
scripted one that answers at once with what was made before, so that the socket alone is measured.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embedctl.engine import EngineFacade
from embedctl.records import EmbedResult
from tests.support import canned
from tests.support.canned import NOW
from tests.support.control import client, served
from tests.support.fake_engine import FakeEngine


class Ready(FakeEngine):
    """Everything large was made before it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.month = canned.history(NOW - 30 * 86_400, NOW, points=600)
        self.state = super().status()
        self.results = {
            count: EmbedResult(
                np.random.default_rng(1).standard_normal((count, 1024)).astype(np.float32),
                "native", None, (), (), 0.0,
            )
            for count in (1, 32, 4096)
        }  # fmt: skip

    def status(self):  # type: ignore[no-untyped-def]
        return self.state

    def history(self, since, until, **_):  # type: ignore[no-untyped-def]
        return self.month

    def embed(self, texts, **_):  # type: ignore[no-untyped-def]
        return self.results[len(texts)]


def milliseconds(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs + 3):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[3:]) * 1000


def main() -> None:
    engine = Ready()
    texts = {count: ["a text of some words, as they are"] * count for count in engine.results}
    entries = sum(len(series) for series in engine.month.series.values())
    calls: dict[str, tuple[Callable[[EngineFacade], object], int]] = {
        "recorded_span (two numbers)": (lambda e: e.recorded_span(), 300),
        "status": (lambda e: e.status(), 300),
        f"history of 30 days ({entries} entries)": (lambda e: e.history(NOW - 30 * 86_400, NOW), 50),
        "embed 1 text": (lambda e: e.embed(texts[1]), 300),
        "embed 32 texts": (lambda e: e.embed(texts[32]), 300),
        "embed 4,096 texts (16 MiB)": (lambda e: e.embed(texts[4096]), 20),
    }
    least = 0.0
    with tempfile.TemporaryDirectory() as name, served(engine, Path(name)), client(Path(name)) as remote:
        for title, (call, runs) in calls.items():
            took = milliseconds(lambda call=call: call(remote), runs)  # type: ignore[misc]
            least = least or took
            print(f"{title:<40} {took:8.3f} ms   {took / least:8.1f} ×")


if __name__ == "__main__":
    main()
