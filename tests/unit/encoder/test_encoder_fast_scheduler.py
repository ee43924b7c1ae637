"""How requests share the device: a runner that computes nothing shows what was run, and in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from embedctl.encoder.jobs import Job
from embedctl.encoder.packing import Packed
from embedctl.encoder.scheduler import Scheduler
from embedctl.errors import BackendOutOfMemoryError, Cancelled

WAIT = 20  # seconds after which a test is stuck


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
    return Scheduler(runner, token_budget=budget, most_texts=most_texts, first_position=0, skipped_id=None)


def job(*lengths: int, **options: Any) -> Job:
    """A request; tokenised already, unless in the background, as `FastEncoder.encode` leaves small ones."""
    request = Job([str(length) for length in lengths], tokenize, dimension=4, **options)
    if "background" not in options:
        request.prepare(10**9, wait=True)
    return request


def bulk(count: int, length: int = 2000, **options: Any) -> Job:
    return job(*[length] * count, **options)


def test_answers_come_in_the_order_of_the_request() -> None:
    runner = FakeRunner()
    request = job(3, 5, 2, 5, 1)
    scheduler(runner).run(request)
    result = request.result("cpu")
    assert result.vectors[:, 0].tolist() == [3, 5, 2, 5, 1]
    assert result.token_counts.tolist() == [3, 5, 2, 5, 1]
    assert runner.batches == [[5, 5, 3, 2, 1]]


def test_batches_keep_to_the_token_budget_and_to_the_callers_batch_size() -> None:
    runner = FakeRunner()
    scheduler(runner, budget=4096).run(bulk(5))
    assert runner.batches == [[2000, 2000], [2000, 2000], [2000]]
    runner = FakeRunner()
    scheduler(runner, budget=4096).run(job(*range(1500, 1505), most_texts=2))
    assert [len(batch) for batch in runner.batches] == [2, 2, 1]


def test_a_text_longer_than_the_budget_goes_alone() -> None:
    runner = FakeRunner()
    scheduler(runner, budget=1500).run(job(1200, 8192, 1100))
    assert runner.batches == [[8192], [1200], [1100]]


def test_failures_and_truncation_name_the_right_texts() -> None:
    request = Job(["7", "9", "\ud800", "13"], tokenize, dimension=4)
    scheduler(FakeRunner()).run(request)
    result = request.result("cpu")
    assert result.truncated == (1,)
    assert [failure.index for failure in result.failures] == [2, 3]
    assert np.isnan(result.vectors[[2, 3]]).all() and not np.isnan(result.vectors[[0, 1]]).any()


def test_a_request_of_no_texts_is_answered_without_a_batch() -> None:
    runner = FakeRunner()
    request = job()
    scheduler(runner).run(request)
    assert request.result("cpu").vectors.shape == (0, 4)
    assert runner.batches == []


def test_a_query_waits_for_no_more_than_the_batch_that_runs() -> None:
    shared: list[Scheduler] = []
    queries: list[threading.Thread] = []

    def send_query(number: int) -> None:
        if number == 1:
            query = job(7)
            queries.append(threading.Thread(target=shared[0].run, args=(query,)))
            queries[0].start()
            arrived = threading.Event()
            while not arrived.wait(0.001):
                with shared[0]._turn:
                    if query in shared[0]._jobs:
                        arrived.set()

    runner = FakeRunner(on_wait=send_query)
    shared.append(scheduler(runner, budget=2000))
    shared[0].run(bulk(6))
    queries[0].join(WAIT)
    assert runner.batches == [[2000], [2000], [7], [2000], [2000], [2000], [2000]]


def test_queries_that_meet_are_packed_together_and_do_not_starve_a_bulk_job() -> None:
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    started = threading.Event()
    crowd = ThreadPoolExecutor(9)
    futures: list[Any] = []

    def meet(number: int) -> None:
        if number == 0:
            futures.extend(crowd.submit(shared.run, job(10 + i)) for i in range(8))
            while len(shared._jobs) < 9:
                started.wait(0.001)

    runner.on_wait = meet
    shared.run(bulk(4))
    for future in futures:
        future.result(WAIT)
    crowd.shutdown()
    assert runner.batches == [[2000], [17, 16, 15, 14, 13, 12, 11, 10], [2000], [2000], [2000]]


def test_two_bulk_jobs_take_turns() -> None:
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    second: list[threading.Thread] = []

    def join_in(number: int) -> None:
        if number == 0:
            second.append(threading.Thread(target=shared.run, args=(bulk(3, 1999),)))
            second[0].start()
            pause = threading.Event()
            while len(shared._jobs) < 2:
                pause.wait(0.001)

    runner.on_wait = join_in
    shared.run(bulk(4))
    second[0].join(WAIT)
    lengths = [batch[0] for batch in runner.batches]
    assert sorted(lengths) == [1999] * 3 + [2000] * 4
    assert lengths[2:6] in ([1999, 2000, 1999, 2000], [2000, 1999, 2000, 1999])


def test_a_cancelled_request_frees_its_place_and_the_next_one_is_served() -> None:
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    with pytest.raises(Cancelled):
        shared.run(bulk(50, cancelled=lambda: len(runner.batches) >= 3))
    assert len(runner.batches) <= 4
    after = job(5)
    shared.run(after)
    assert after.result("cpu").vectors[0, 0] == 5
    assert not shared._jobs


def test_lack_of_memory_halves_the_budget_and_is_noted() -> None:
    runner = FakeRunner(memory=2500)
    shared = scheduler(runner, budget=8000)
    request = bulk(8, 1000)
    shared.run(request)
    result = request.result("cuda")
    assert np.isfinite(result.vectors).all()
    assert shared.token_budget == 2000
    assert result.notes == ("out of memory with 4000 tokens per batch: went on with 2000",)


def test_a_text_that_never_fits_fails_alone() -> None:
    request = job(50, 5000, 60)
    scheduler(FakeRunner(memory=2500), budget=8000).run(request)
    result = request.result("cuda")
    assert [failure.index for failure in result.failures] == [1]
    assert result.vectors[[0, 2], 0].tolist() == [50, 60]


def test_memory_for_no_text_at_all_is_an_error() -> None:
    request = job(5000)
    scheduler(FakeRunner(memory=10)).run(request)
    with pytest.raises(BackendOutOfMemoryError):
        request.result("cuda")


def test_a_fault_of_the_device_ends_the_request_with_that_fault() -> None:
    request = job(5)
    scheduler(FakeRunner(broken=RuntimeError("illegal memory access"))).run(request)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        request.result("cuda")


def test_tokens_made_in_the_background_end_in_the_same_answers() -> None:
    with ThreadPoolExecutor(2) as background:
        lengths = [100 + i % 700 for i in range(3000)]
        request = job(*lengths, background=background)
        runner = FakeRunner()
        scheduler(runner, budget=8000).run(request)
    assert request.result("cuda").vectors[:, 0].tolist() == lengths
    assert max(sum(batch) for batch in runner.batches) <= 8000
