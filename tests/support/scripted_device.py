"""The encoder's scheduler over a device that computes nothing and shows what was run, and in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from embedctl.encoder.jobs import Job
    from embedctl.encoder.packing import Packed
    from embedctl.encoder.scheduler import Scheduler

WAIT = 20
"""Seconds after which a test is stuck."""


@dataclass
class FakeTokens:
    texts: Sequence[str]

    def ids(self) -> list[np.ndarray]:
        return [np.array([int(text)] * int(text.split(".")[0]), np.int32) for text in self.texts]

    def truncated(self) -> list[int]:
        return [index for index, text in enumerate(self.texts) if text == "9"]


def tokenize(texts: Sequence[str]) -> Any:
    """A text is a number: its token count, and its token id."""
    return FakeTokens(texts)


@dataclass
class FakeRunner:
    """A text's vector is its token id; NaN for 13. Records batches as lists of lengths."""

    memory: int = 10**9
    batches: list[list[int]] = field(default_factory=list)
    on_wait: Callable[[int], None] = lambda number: None
    broken: BaseException | None = None

    def stage(self, batch: Packed, *, normalize: bool) -> FakeBatch:
        return FakeBatch(self, batch)

    def release_memory(self) -> None:
        pass


@dataclass
class FakeBatch:
    runner: FakeRunner
    batch: Packed
    number: int = -1

    def launch(self) -> FakeBatch:
        if self.batch.tokens > self.runner.memory:
            raise RuntimeError("CUDA out of memory, says the test")
        if self.runner.broken is not None:
            raise self.runner.broken
        self.number = len(self.runner.batches)
        self.runner.batches.append(self.batch.lengths.tolist())
        return self

    def wait(self) -> None:
        self.runner.on_wait(self.number)

    def collect(self) -> np.ndarray:
        first = self.batch.ids[self.batch.bounds[:-1]].astype(np.float32)
        first[first == 13] = np.nan
        return np.repeat(first[:, None], 4, axis=1)


def scheduler(runner: FakeRunner, budget: int = 4096, most_texts: int = 100) -> Scheduler:
    from embedctl.encoder.scheduler import Scheduler

    return Scheduler(runner, token_budget=budget, most_texts=most_texts, first_position=0, skipped_id=None)


def job(*lengths: int, **options: Any) -> Job:
    """A request; tokenised already, unless in the background, as `FastEncoder.encode` leaves small ones."""
    from embedctl.encoder.jobs import Job

    request = Job([str(length) for length in lengths], tokenize, dimension=4, **options)
    if "background" not in options:
        request.prepare(10**9, wait=True)
    return request


def bulk(count: int, length: int = 2000, **options: Any) -> Job:
    return job(*[length] * count, **options)


def arrive(shared: Scheduler, request: Job, pool: ThreadPoolExecutor) -> Future[None]:
    """Send a request from a thread of its own; returns once it stands in the queue."""
    future = pool.submit(shared.run, request)
    pause = threading.Event()
    while request not in shared._requests._jobs and not future.done():
        pause.wait(0.001)
    return future


def held(runner: FakeRunner) -> tuple[threading.Event, threading.Event]:
    """Have the runner stand in its first batch: (it stands there, let it go on)."""
    standing, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        standing.set()
        assert go_on.wait(WAIT)

    runner.on_wait = hold
    return standing, go_on
