"""Waiting that lets a cancel through."""

from __future__ import annotations

import threading

import pytest

from embedctl.errors import Cancelled
from embedctl.hub import background
from embedctl.hub.background import run_cancellable
from embedctl.progress import CancelToken


def test_the_result_and_a_last_tick_come_back() -> None:
    ticks: list[int] = []
    assert run_cancellable(lambda: 7, CancelToken(), tick=lambda: ticks.append(1)) == 7
    assert ticks


def test_an_error_of_the_work_is_raised_here() -> None:
    with pytest.raises(ValueError, match="of the work"):
        run_cancellable(lambda: int("of the work"), CancelToken())


def test_deaf_work_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_GRACE", 0.01)
    end, cancel = threading.Event(), CancelToken()
    with pytest.raises(Cancelled):
        run_cancellable(end.wait, cancel, tick=cancel.cancel, every=0.001)
    end.set()


def test_nothing_is_started_after_a_cancel() -> None:
    cancel = CancelToken()
    cancel.cancel()
    started: list[int] = []
    with pytest.raises(Cancelled):
        run_cancellable(lambda: started.append(1), cancel)
    assert started == []
