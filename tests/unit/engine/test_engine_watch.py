from __future__ import annotations

import threading

import pytest

from embedctl.engine.deadline import Deadline
from embedctl.engine.traffic import Traffic
from embedctl.engine.watch import BackendWatch
from embedctl.errors import BackendError
from embedctl.progress import CancelToken, silent
from tests.support.fake_backend import FakeBackend


class Stage:
    """Two backends, a clock, and one watch over them."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.native, self.ollama = FakeBackend("native"), FakeBackend("ollama")
        self.traffic = Traffic("native", monotonic=self.clock)
        self.ours = {"native", "ollama"}
        self.measuring = False
        self.watch = BackendWatch(
            (self.native, self.ollama),
            self.traffic,
            probe_every=10.0,
            ours=lambda name: name in self.ours,
            quiet=lambda: self.measuring,
            monotonic=self.clock,
        )

    def clock(self) -> float:
        return self.now

    def look(self, after: float = 0.0) -> tuple[int, int]:
        """Texts embedded by the two backends in one round."""
        before = (self.native.embedded, self.ollama.embedded)
        self.now += after
        self.watch.look()
        return self.native.embedded - before[0], self.ollama.embedded - before[1]


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.native.load(silent, CancelToken())
    return stage


def test_a_loaded_backend_is_probed_at_its_pace(stage: Stage) -> None:
    assert stage.look() == (1, 0)
    assert stage.look(after=9.0) == (0, 0)
    assert stage.look(after=1.0) == (1, 0)
    assert "native_probe" in stage.traffic.figures()


def test_a_model_that_somebody_else_holds_is_left_alone(stage: Stage) -> None:
    stage.ollama.load(silent, CancelToken())
    stage.ours = {"native"}
    assert stage.look() == (1, 0)


def test_a_backend_that_answers_requests_needs_no_probe(stage: Stage) -> None:
    with stage.traffic.request("native", 1, Deadline(None)):
        assert stage.look() == (0, 0)
    assert stage.look(after=5.0) == (0, 0)
    assert stage.look(after=5.0) == (1, 0)


def test_nothing_is_probed_while_a_benchmark_measures(stage: Stage) -> None:
    stage.measuring = True
    assert stage.look() == (0, 0)


def test_a_failing_probe_leaves_no_figure_and_ends_nothing(stage: Stage) -> None:
    stage.native.embed_error = BackendError("It stalled")
    assert stage.look() == (0, 0)
    assert stage.traffic.figures() == {}
    stage.native.embed_error = None
    assert stage.look(after=10.0) == (1, 0)


def test_a_round_that_fails_is_not_the_last_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    again = threading.Event()

    def broken() -> None:
        looks.append(1)
        if len(looks) == 2:
            again.set()
        raise ZeroDivisionError

    monkeypatch.setattr("embedctl.engine.watch.REFRESH_EVERY", 0.0)
    monkeypatch.setattr(stage.native, "refresh", broken)
    stage.watch.start()
    assert again.wait(10)
    stage.watch.stop()
