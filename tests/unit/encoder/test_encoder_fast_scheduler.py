"""How requests become batches: their order, the token budget, and too little memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from embedctl.errors import BackendOutOfMemoryError, Cancelled
from tests.support.late import late
from tests.support.scripted_device import FakeRunner, bulk, job, scheduler, tokenize

jobs = late("embedctl.encoder.jobs")


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
    request = jobs.Job(["7", "9", "\ud800", "13"], tokenize, dimension=4)
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
        request = jobs.Job(
            ["1", "2"] * 50_000, counted, dimension=4, background=background if beside else None
        )
        scheduler(runner, budget=4096, most_texts=2048).run(request)
    assert request.result("cpu").vectors[:4, 0].tolist() == [1, 2, 1, 2]
    assert sum(map(len, runner.batches)) == 100_000
    assert max(waiting) <= 12 * 1024
