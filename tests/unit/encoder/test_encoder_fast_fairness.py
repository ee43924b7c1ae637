"""What requests owe each other, counted in batches: queries beside bulk jobs, and bulk jobs in turns."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.scripted_device import WAIT, FakeRunner, arrive, bulk, job, scheduler


def test_a_query_waits_for_no_more_than_the_batch_that_runs() -> None:
    shared: list[Any] = []
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
