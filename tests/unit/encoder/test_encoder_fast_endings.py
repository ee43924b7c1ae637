"""How requests end before their time: closed, cancelled, interrupted, by a fault; nobody is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from embedctl.errors import BackendNotLoadedError, Cancelled
from tests.support.late import late
from tests.support.scripted_device import WAIT, FakeRunner, arrive, bulk, held, job, scheduler, tokenize

jobs = late("embedctl.encoder.jobs")


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
    delivered: list[Any] = []
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
        request = jobs.Job(["5"] * 40_000, slow, dimension=4, background=background)
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
    bad = jobs.Job(["5"] * 3, broken, dimension=4)
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
