"""Many clients of a gateway at once, and what they see."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np

from tests.support.gateways import MODEL, vectors

Right = Callable[[list[str], str, np.ndarray], bool]
"""Whether these are the vectors of these texts, in their order, from the backend named."""


@dataclass
class Seen:
    answers: Counter[str] = field(default_factory=Counter)
    """Good answers by backend."""
    faults: list[str] = field(default_factory=list)
    """Requests that failed, or whose vectors were mislabelled, wrong or out of order."""
    milliseconds: list[float] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def answers_more(self, count: int) -> None:
        """Return once so many more requests were answered, well or not."""
        until = self.total + count
        while self.total < until:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), 30)

    @property
    def total(self) -> int:
        return self.answers.total() + len(self.faults)

    def count(self, backend: str, milliseconds: float) -> None:
        self.answers[backend] += 1
        self.milliseconds.append(milliseconds)
        self._more.set()

    def fault(self, what: str) -> None:
        self.faults.append(what)
        self._more.set()


@asynccontextmanager
async def under_load(
    url: str,
    count: int,
    right: Right,
    digests: Mapping[str, str],
    *,
    texts: Callable[[int, int], list[str]] | None = None,
    model: str = MODEL,
) -> AsyncIterator[Seen]:
    """`count` clients that embed without a pause while inside.

    Args:
        digests: The fingerprint that each backend's answers must carry.
        texts: What client `number` asks in its turn `turn`; by default two texts of its own.
    """
    seen, stop = Seen(), asyncio.Event()
    asked = texts or (lambda number, turn: [f"client {number} turn {turn} text {part}" for part in range(2)])

    async def client(session: httpx.AsyncClient, number: int) -> None:
        turn = 0
        while not stop.is_set():
            mine = asked(number, turn)
            turn += 1
            started = asyncio.get_running_loop().time()
            try:
                answer = await session.post("/v1/embeddings", json={"model": model, "input": mine})
            except httpx.HTTPError as error:
                seen.fault(f"{type(error).__name__}: {error}")
                continue
            took = (asyncio.get_running_loop().time() - started) * 1e3
            fault = _fault(answer, mine, right, digests)
            if fault:
                seen.fault(fault)
            else:
                seen.count(answer.headers["X-Embedctl-Backend"], took)

    limits = httpx.Limits(max_connections=count, max_keepalive_connections=count)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as session:
        running = [asyncio.create_task(client(session, number)) for number in range(count)]
        try:
            yield seen
        finally:
            stop.set()
            await asyncio.gather(*running)


def _fault(answer: httpx.Response, texts: list[str], right: Right, digests: Mapping[str, str]) -> str:
    if answer.status_code != 200:
        return f"{answer.status_code}: {answer.text[:200]}"
    backend = answer.headers["X-Embedctl-Backend"]
    if answer.headers["X-Embedctl-Fingerprint"] != digests[backend]:
        return f"{backend} answered under the fingerprint {answer.headers['X-Embedctl-Fingerprint']}"
    if not right(texts, backend, vectors(answer)):
        return f"the vectors are not those of {backend} for these texts in this order"
    return ""
