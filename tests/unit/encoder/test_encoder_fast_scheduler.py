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
from embedctl.errors import BackendNotLoadedError, BackendOutOfMemoryError, Cancelled

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


def test_a_batch_is_filled_past_a_text_that_does_not_fit_and_that_text_comes_next() -> None:
    runner = FakeRunner()
    scheduler(runner, budget=1500).run(job(1100, 1050, 390, 300))
    assert runner.batches == [[1100, 390], [1050, 300]]


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
                if query in shared[0]._requests.waiting():
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
            while len(shared._requests._jobs) < 9:
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
            while len(shared._requests._jobs) < 2:
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
    assert not shared._requests._jobs


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


# Fairness, counted in batches ---------------------------------------------------------------------------


def arrive(shared: Scheduler, request: Job, pool: ThreadPoolExecutor) -> Any:
    """Send a request from a thread of its own; returns once it stands in the queue."""
    future = pool.submit(shared.run, request)
    pause = threading.Event()
    while request not in shared._requests._jobs and not future.done():
        pause.wait(0.001)
    return future


@pytest.mark.parametrize("moment", range(5))
@pytest.mark.parametrize("clients", [1, 4])
def test_a_query_is_answered_after_one_bulk_batch_whenever_it_comes(moment: int, clients: int) -> None:
    """The batch that ran when it came, and its own: the next bulk batch is not begun before."""
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    queries = [job(7) for _ in range(clients)]
    answered: list[int] = []
    with ThreadPoolExecutor(clients) as pool:

        def come(number: int) -> None:
            if number == moment:
                for query in queries:
                    arrive(shared, query, pool)
            answered.append(sum(query.is_finished() for query in queries))

        runner.on_wait = come
        shared.run(bulk(8))
    assert runner.batches[moment] == [2000]
    assert runner.batches[moment + 1] == [7] * clients
    assert all(batch == [2000] for batch in runner.batches[moment + 2 :])
    assert answered[moment + 1 : moment + 3] == [
        0,
        clients,
    ]  # delivered before the batch after it is computed


def test_a_request_that_comes_to_an_idle_device_waits_for_nobody() -> None:
    runner = FakeRunner()
    shared = scheduler(runner)
    for number in range(3):
        shared.run(job(5))
        assert len(runner.batches) == number + 1
    assert shared.batches == 3


def test_batches_grow_with_the_number_of_clients() -> None:
    runner = FakeRunner()
    shared = scheduler(runner)
    with ThreadPoolExecutor(32) as pool:
        futures: list[Any] = []

        def crowd(number: int) -> None:
            if number == 0:
                futures.extend(arrive(shared, job(5 + i), pool) for i in range(32))

        runner.on_wait = crowd
        shared.run(job(3))
        for future in futures:
            future.result(WAIT)
    assert [len(batch) for batch in runner.batches] == [1, 32]


# Ends ----------------------------------------------------------------------------------------------------


def held(runner: FakeRunner) -> tuple[threading.Event, threading.Event]:
    """Have the runner stand in its first batch: (it stands there, let it go on)."""
    standing, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        standing.set()
        assert go_on.wait(WAIT)

    runner.on_wait = hold
    return standing, go_on


def test_closing_in_mid_batch_fails_what_waits_and_leaves_no_thread() -> None:
    runner = FakeRunner()
    standing, go_on = held(runner)
    shared = scheduler(runner, budget=2000)
    requests = [bulk(50), job(5), bulk(3)]
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        futures = [arrive(shared, request, pool) for request in requests]
        assert standing.wait(WAIT)
        closing = pool.submit(shared.close)
        while not shared._closed:
            standing.wait(0)
        go_on.set()
        closing.result(WAIT)
        for future in futures:
            future.result(WAIT)
    for request in requests:
        with pytest.raises(BackendNotLoadedError):
            request.result("cpu")
    assert len(runner.batches) <= 2
    assert not shared._requests._jobs and shared._flight is None
    assert threading.active_count() == before
    with pytest.raises(BackendNotLoadedError):
        shared.run(job(1))
    with pytest.raises(BackendNotLoadedError):
        shared.submit(job(1))
    shared.close()


def test_closing_delivers_the_failure_to_whoever_submitted() -> None:
    runner = FakeRunner()
    standing, go_on = held(runner)
    shared = scheduler(runner, budget=2000)
    delivered: list[Job] = []
    requests = [bulk(9), job(5)]
    assert [shared.submit(request) for request in requests] == [True, False]
    with ThreadPoolExecutor(2) as pool:
        driving = pool.submit(shared.drive, delivered.extend)
        assert standing.wait(WAIT)
        closing = pool.submit(shared.close)
        while not shared._closed:
            standing.wait(0)
        go_on.set()
        driving.result(WAIT)
        closing.result(WAIT)
    assert sorted(map(id, delivered)) == sorted(map(id, requests))
    assert all(isinstance(request.error, BackendNotLoadedError) for request in requests)


def test_closing_ends_tokenising_in_the_background() -> None:
    standing, go_on = threading.Event(), threading.Event()

    def slow(texts: Sequence[str]) -> Any:
        standing.set()
        assert go_on.wait(WAIT)
        return tokenize(texts)

    shared = scheduler(FakeRunner())
    with ThreadPoolExecutor(2) as background, ThreadPoolExecutor(2) as pool:
        request = Job(["5"] * 40_000, slow, dimension=4, background=background)
        running = pool.submit(shared.run, request)
        assert standing.wait(WAIT)
        closing = pool.submit(shared.close)
        while not shared._closed:
            standing.wait(0)
        go_on.set()
        closing.result(WAIT)
        running.result(WAIT)
    assert isinstance(request.error, BackendNotLoadedError) or request.is_finished()


@pytest.mark.parametrize("fault", [ValueError("the caller's function"), Cancelled()])
def test_whatever_a_request_raises_when_asked_frees_its_place_alone(fault: Exception) -> None:
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    other = bulk(3, 1999)

    def ask() -> bool:
        if len(runner.batches) >= 2:
            raise fault
        return False

    with ThreadPoolExecutor(1) as pool:
        standing, go_on = held(runner)
        unwanted = bulk(50, cancelled=ask)
        first = pool.submit(shared.run, unwanted)
        assert standing.wait(WAIT)
        with ThreadPoolExecutor(1) as second_pool:
            second = arrive(shared, other, second_pool)
            go_on.set()
            second.result(WAIT)
        if isinstance(fault, Cancelled):
            with pytest.raises(Cancelled):
                first.result(WAIT)
        else:
            first.result(WAIT)
            assert unwanted.error is fault
    assert other.result("cpu").vectors[:, 0].tolist() == [1999] * 3
    assert sum(batch[0] == 2000 for batch in runner.batches) <= 3
    assert not shared._requests._jobs


def test_a_batch_of_cancelled_requests_is_not_run() -> None:
    """A bulk batch is put together while one runs; if its request is taken back, its place is free."""
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    gone = threading.Event()
    runner.on_wait = lambda number: gone.set()
    with pytest.raises(Cancelled):
        shared.run(bulk(5, cancelled=gone.is_set))
    assert runner.batches == [[2000]]


def test_a_tokenizer_that_fails_costs_its_own_request() -> None:
    def broken(texts: Sequence[str]) -> Any:
        raise ValueError("no such token")

    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    bad = Job(["5"] * 3, broken, dimension=4)
    with ThreadPoolExecutor(1) as pool:
        futures: list[Any] = []
        runner.on_wait = lambda number: futures.append(arrive(shared, bad, pool)) if number == 0 else None
        good = bulk(3)
        shared.run(good)
        futures[0].result(WAIT)
    assert np.isfinite(good.result("cpu").vectors).all()
    with pytest.raises(ValueError, match="no such token"):
        bad.result("cpu")


def test_an_interrupt_in_mid_batch_leaves_nobody_waiting() -> None:
    runner = FakeRunner()
    shared = scheduler(runner, budget=2000)
    other = bulk(3, 1999)
    with ThreadPoolExecutor(1) as pool:
        futures: list[Any] = []

        def interrupt(number: int) -> None:
            if number == 0:
                futures.append(arrive(shared, other, pool))
                raise KeyboardInterrupt

        runner.on_wait = interrupt
        with pytest.raises(KeyboardInterrupt):
            shared.run(bulk(3))
        futures[0].result(WAIT)
    assert other.is_finished()
    after = job(5)
    shared.run(after)
    assert after.result("cpu").vectors[0, 0] == 5


def test_memory_that_fails_while_a_batch_runs_is_met_with_smaller_ones() -> None:
    runner = FakeRunner()

    def fail(number: int) -> None:
        if len(runner.batches[number]) > 2:
            raise MemoryError

    runner.on_wait = fail
    shared = scheduler(runner, budget=8000)
    request = bulk(8, 1000)
    shared.run(request)
    assert request.result("cpu").vectors[:, 0].tolist() == [1000] * 8
    assert shared.token_budget == 2000


def test_while_it_is_paused_requests_wait() -> None:
    runner = FakeRunner()
    shared = scheduler(runner)
    request = job(5)
    with ThreadPoolExecutor(1) as pool:
        with shared.paused():
            future = arrive(shared, request, pool)
            assert runner.batches == []
        future.result(WAIT)
    assert runner.batches == [[5]]


@pytest.mark.parametrize("beside", [False, True])
def test_tokens_of_a_hundred_thousand_texts_exist_for_a_few_windows_at_a_time(beside: bool) -> None:
    made: list[int] = []

    def counted(texts: Sequence[str]) -> Any:
        made.append(len(texts))
        return tokenize(texts)

    runner = FakeRunner()
    waiting: list[int] = []
    runner.on_wait = lambda number: waiting.append(sum(made) - sum(map(len, runner.batches)))
    with ThreadPoolExecutor(2) as background:
        request = Job(["1", "2"] * 50_000, counted, dimension=4, background=background if beside else None)
        scheduler(runner, budget=4096, most_texts=2048).run(request)
    assert request.result("cpu").vectors[:4, 0].tolist() == [1, 2, 1, 2]
    assert sum(map(len, runner.batches)) == 100_000
    assert max(waiting) <= 12 * 1024
