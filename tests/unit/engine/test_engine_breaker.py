"""Loads that fail one after the other: not one for each request, and the reason is told all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.engine import breaker
from embedctl.engine.breaker import PAUSES_S, Breaker
from embedctl.errors import BackendError, WorkerCrashedError
from embedctl.progress import CancelToken
from embedctl.records import BackendState, JobState
from tests.support.engines import Rig, rig

DIED = WorkerCrashedError("The worker ended", why="while it loaded", remedy="look at its log")


def is_open(tried: Breaker) -> bool:
    try:
        tried.raise_if_open()
    except WorkerCrashedError:
        return True
    return False


def test_each_failure_of_a_row_is_followed_by_a_longer_pause() -> None:
    now = 1_000.0
    tried = Breaker(monotonic=lambda: now)
    assert not is_open(tried)
    for pause in (*PAUSES_S, PAUSES_S[-1]):
        tried.failed(DIED)
        now += pause - 0.1
        assert is_open(tried)
        now += 0.2
        assert not is_open(tried)
    tried.succeeded()
    tried.failed(DIED)
    now += PAUSES_S[0] + 0.1
    assert not is_open(tried), "a success ends the row"
    tried.failed(DIED)
    now += 1_000
    tried.failed(DIED)
    now += PAUSES_S[0] + 0.1
    assert not is_open(tried), "so does a long time"


def test_the_reason_is_told_with_the_time_of_the_next_attempt() -> None:
    now = 0.0
    tried = Breaker(monotonic=lambda: now)
    tried.failed(DIED)
    now = 0.4
    with pytest.raises(WorkerCrashedError) as caught:
        tried.raise_if_open()
    assert caught.value is not DIED
    assert (caught.value.what, caught.value.why) == (DIED.what, DIED.why)
    assert caught.value.remedy == "the next attempt is due in 1 s; look at its log"


def dies_at_every_load(made: Rig) -> None:
    def die(cancel: CancelToken) -> None:
        made.native._status = replace(made.native._status, state=BackendState.FAILED)

    made.native.on_load, made.native.load_error = die, DIED


def test_a_worker_that_dies_at_every_load_is_not_loaded_for_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSES_S", (1_000.0,))
    with rig(tmp_path, sampling=False) as made:
        dies_at_every_load(made)
        for _ in range(3):
            with pytest.raises(WorkerCrashedError, match="The worker ended"):
                made.engine.embed(["a"])
        assert made.native.calls == ["load"]
        made.native.on_load, made.native.load_error = lambda cancel: None, None
        assert made.engine.load("native").wait(30).state is JobState.DONE, "who asks for a load gets one"
        assert made.engine.embed(["a"]).backend == "native"


def test_what_is_amiss_before_a_load_is_looked_at_for_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSES_S", (1_000.0,))
    with rig(tmp_path, sampling=False) as made:
        made.native.preflight_error = BackendError("The model is not there")
        with pytest.raises(BackendError, match="not there"):
            made.engine.embed(["a"])
        made.native.preflight_error = None
        assert made.engine.embed(["a"]).backend == "native"
