"""What an application sees: single questions through `Engine.embed`, the process boundary and the worker."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from embedctl.engine.facade import EngineFacade
from embedctl.lab.workloads import built_in

CLIENTS = 32


@dataclass(frozen=True)
class Boundary:
    p50_ms: float
    p95_ms: float
    many_per_s: float
    """Answers per second to `CLIENTS` clients at once, one question each time."""

    def __str__(self) -> str:
        return (
            f"one query through Engine.embed: p50 {self.p50_ms:.2f} ms, p95 {self.p95_ms:.2f} ms; "
            f"{CLIENTS} clients: {self.many_per_s:,.0f} texts/s"
        )


def across_the_boundary(engine: EngineFacade, *, queries: int = 1_000, shared: int = 6_400) -> Boundary:
    """Ask one question at a time, then from many clients at once. The backend is loaded."""
    texts = built_in()
    for number in range(50):
        engine.embed([texts.query(number)])
    times = []
    for number in range(queries):
        began = time.perf_counter()
        engine.embed([texts.query(number)])
        times.append(time.perf_counter() - began)
    times.sort()
    with ThreadPoolExecutor(CLIENTS) as clients:
        began = time.perf_counter()
        list(clients.map(lambda number: engine.embed([texts.query(number)]), range(shared)))
        took = time.perf_counter() - began
    return Boundary(times[queries // 2] * 1e3, times[queries * 95 // 100] * 1e3, shared / took)
