from __future__ import annotations

import threading

import pytest

from embedctl.engine.jobs import Job, JobRunner
from embedctl.errors import BackendError, UsageError
from embedctl.records import JobState, JobUpdate


@pytest.fixture
def updates() -> list[JobUpdate]:
    return []


@pytest.fixture
def runner(updates: list[JobUpdate]) -> JobRunner:
    return JobRunner(updates.append)


def test_a_job_publishes_its_start_its_steps_and_its_result(
    runner: JobRunner, updates: list[JobUpdate]
) -> None:
    def work(job: Job) -> str:
        job("first", done=1, total=2, unit="bytes")
        job("second")
        return "the result"

    final = runner.start("group", "load", "Load it", work).wait(30)
    assert final.state is JobState.DONE
    assert final.result == "the result"
    assert [u.step for u in updates] == ["", "first", "second", "second"]
    assert updates[-1] == final
    assert runner.running() == ()


def test_an_expected_error_becomes_a_failure_in_three_parts(runner: JobRunner) -> None:
    def work(job: Job) -> None:
        raise BackendError("It broke", why="a test", remedy="mend it")

    final = runner.start("group", "load", "Load it", work).wait(30)
    assert final.state is JobState.FAILED
    assert final.failure is not None
    assert (final.failure.what, final.failure.why, final.failure.remedy) == ("It broke", "a test", "mend it")


def test_an_unexpected_error_names_its_type(runner: JobRunner) -> None:
    final = runner.start("group", "load", "Load it", lambda job: {}["absent"]).wait(30)
    assert final.state is JobState.FAILED
    assert final.failure is not None and "KeyError" in final.failure.why


def test_cancel_reaches_the_work_and_is_no_failure(runner: JobRunner) -> None:
    started = threading.Event()

    def work(job: Job) -> None:
        started.set()
        job.cancel_token.wait(30)
        job.cancel_token.raise_if_cancelled()

    job = runner.start("group", "load", "Load it", work)
    assert started.wait(30)
    job.cancel()
    final = job.wait(30)
    assert final.state is JobState.CANCELLED
    assert final.failure is None


def test_jobs_of_one_group_exclude_each_other_and_others_do_not(runner: JobRunner) -> None:
    release = threading.Event()
    first = runner.start("group", "switch", "Switch", lambda job: release.wait(30))
    with pytest.raises(UsageError, match="still running"):
        runner.start("group", "load", "Load", lambda job: None)
    assert runner.start("other", "download", "Download", lambda job: None).wait(30).state is JobState.DONE
    release.set()
    first.wait(30)
    assert runner.start("group", "load", "Load", lambda job: None).wait(30).state is JobState.DONE


def test_close_cancels_what_runs_and_refuses_what_comes(runner: JobRunner) -> None:
    job = runner.start("group", "load", "Load", lambda job: job.cancel_token.wait(30))
    runner.close()
    assert job.wait(0).state is JobState.DONE
    with pytest.raises(UsageError, match="closing"):
        runner.start("group", "load", "Load", lambda job: None)


def test_frequent_progress_of_one_step_is_not_published_each_time(
    runner: JobRunner, updates: list[JobUpdate]
) -> None:
    def work(job: Job) -> None:
        for done in range(10_000):
            job("copying", done=done, total=10_000)

    final = runner.start("group", "download", "Download", work).wait(30)
    assert final.done == 9_999
    assert len(updates) < 1_000
