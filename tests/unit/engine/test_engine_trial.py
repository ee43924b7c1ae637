"""Migrations on trial: a real engine between scripted backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from embedctl.backends.base import EmbedRequest
from embedctl.engine.trial_figures import Figures, cosines
from embedctl.errors import BackendError, InvalidTextError, UsageError
from embedctl.records import (
    BackendState,
    EmbedResult,
    JobState,
    Severity,
    TextFailure,
    Trial,
    TrialReport,
)
from tests.support.engines import GIB, Rig, rig
from tests.support.fake_backend import vector_of

SECRET = "the text of a user"


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, sampling=False) as made:
        made.engine.load("native").wait(30)
        yield made


def begin(r: Rig, *, shadow: float = 0.0, share: float = 0.0) -> None:
    final = r.engine.start_trial(Trial("ollama", shadow, share)).wait(30)
    assert final.state is JobState.DONE, final.failure
    assert isinstance(final.result, TrialReport)


def report(r: Rig) -> TrialReport:
    found = r.engine.trial()
    assert found is not None
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll another thread's work; the deadline only ends a test that has failed."""
    for _ in range(20_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never came true")


def test_shadowed_requests_are_answered_by_the_active_backend_and_compared(r: Rig) -> None:
    begin(r, shadow=1.0)
    for number in range(5):
        result = r.engine.embed([f"text {number}", "another"])
        assert result.backend == "native"
        wait_until(lambda done=number + 1: report(r).shadowed == done)
    found = report(r)
    assert (found.compared, found.dropped, found.failed, found.shared) == (10, 0, 0, 0)
    assert found.least_cosine == pytest.approx(1.0)
    assert found.active_p50_ms is not None and found.candidate_p95_ms is not None


def test_which_requests_are_chosen_is_counted_out(r: Rig) -> None:
    begin(r, share=0.05)
    names = [r.engine.embed([f"text {number}"]).backend for number in range(100)]
    assert [number for number, name in enumerate(names, 1) if name == "ollama"] == [20, 40, 60, 80, 100]
    begin(r, share=0.5)
    assert report(r).shared == 5  # the figures go on
    assert [r.engine.embed(["text"]).backend for _ in range(4)].count("ollama") == 2
    begin(r, share=1.0)
    assert {r.engine.embed(["text"]).backend for _ in range(10)} == {"ollama"}
    assert report(r).shared == 17


def test_a_request_that_names_its_backend_takes_no_part(r: Rig) -> None:
    begin(r, shadow=1.0, share=1.0)
    assert r.engine.embed(["text"], backend="native").backend == "native"
    assert (report(r).shadowed, report(r).shared) == (0, 0)


def test_a_shared_request_that_fails_is_answered_by_the_active_backend(r: Rig) -> None:
    begin(r, share=1.0)
    r.ollama.embed_error = BackendError("It broke")
    result = r.engine.embed(["text"])
    assert result.backend == "native"
    np.testing.assert_allclose(result.vectors[0], vector_of("text"))
    r.ollama.embed_error = None
    r.ollama.failing = {"bad for Ollama": "NaN"}
    assert r.engine.embed(["fine", "bad for Ollama"]).failures == ()
    assert (report(r).failed, report(r).shared) == (2, 0)


def test_a_candidate_that_went_away_is_not_loaded_by_a_shared_request(r: Rig) -> None:
    begin(r, share=1.0)
    r.ollama.unload()
    assert r.engine.embed(["text"]).backend == "native"
    assert (report(r).failed, r.ollama.calls) == (1, ["load", "unload"])


def test_what_is_wrong_with_a_text_is_told_at_once(r: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(r, share=1.0)

    def refuse(_: EmbedRequest) -> EmbedResult:
        raise InvalidTextError("Text 0 is not a string", index=0)

    monkeypatch.setattr(r.ollama, "embed", refuse)
    with pytest.raises(InvalidTextError):
        r.engine.embed(["text"])
    assert report(r).failed == 0


def test_live_requests_never_wait_for_a_busy_candidate(r: Rig) -> None:
    begin(r, shadow=1.0)
    r.ollama.gate = threading.Event()
    for number in range(20):
        assert r.engine.embed([f"text {number}"]).backend == "native"
    assert report(r).dropped >= 17  # one is worked on, two wait
    r.ollama.gate.set()
    wait_until(lambda: report(r).shadowed + report(r).dropped == 20)


def test_a_shadow_that_fails_is_counted_and_the_trial_goes_on(r: Rig) -> None:
    begin(r, shadow=1.0)
    r.ollama.embed_error = BackendError("It broke")
    r.engine.embed(["text"])
    wait_until(lambda: report(r).failed == 1)
    r.ollama.embed_error = None
    r.engine.embed(["text"])
    wait_until(lambda: report(r).shadowed == 1)


def test_a_candidate_that_does_not_fit_beside_is_refused_with_the_reason(r: Rig) -> None:
    r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
    final = r.engine.start_trial(Trial("ollama", shadow=0.1)).wait(30)
    assert final.state is JobState.FAILED
    assert final.failure is not None and "8.0 GiB are kept free" in final.failure.why
    assert r.engine.trial() is None
    assert r.engine.embed(["text"]).backend == "native"


def test_vectors_of_another_model_are_shadowed_and_never_shared(r: Rig) -> None:
    r.ollama.twist = 0.5
    final = r.engine.start_trial(Trial("ollama", share=0.05)).wait(30)
    assert final.failure is not None and "No request is shared with ollama" in final.failure.what
    assert r.engine.trial() is None
    begin(r, shadow=1.0)
    r.engine.embed(["text"])
    wait_until(lambda: report(r).shadowed == 1)
    assert (report(r).least_cosine or 1.0) < 0.99


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        (Trial("native", shadow=0.1), "active backend already"),
        (Trial("ollama"), "Nothing would be tried"),
        (Trial("ollama", share=0.05, advance_after=10), "Nothing would be compared"),
        (Trial("ollama", shadow=0.1, advance_after=0), "0 is no number of requests"),
        (Trial("ollama", shadow=1.5), r"shadow = 1\.5 is no share"),
        (Trial("ollama", share=float("nan")), "share = nan is no share"),
        (Trial("tei", shadow=0.1), "no backend 'tei'"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused_at_once(r: Rig, trial: Trial, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        r.engine.start_trial(trial)


def test_a_switch_ends_the_trial_and_its_figures_are_on_the_time_line(r: Rig) -> None:
    begin(r, shadow=1.0)
    r.engine.embed([SECRET])
    wait_until(lambda: report(r).shadowed == 1)
    assert r.engine.switch("ollama", keep_both=True).wait(30).state is JobState.DONE
    assert r.engine.trial() is None
    ended, began = r.engine.events(kinds=["trial"])
    assert (began.title, ended.title) == ("trial of ollama began", "trial of ollama ended")
    assert (ended.detail["shadowed"], ended.detail["ended_by"]) == (1, "a switch to ollama")
    assert ended.detail["median_cosine"] == pytest.approx(1.0)
    assert SECRET not in repr(r.engine.events())


def test_stopping_ends_it_and_the_candidate_stays_loaded(r: Rig) -> None:
    begin(r, share=1.0)
    r.engine.embed(["text"])
    stopped = r.engine.stop_trial()
    assert stopped is not None and stopped.shared == 1
    assert r.engine.stop_trial() is None
    assert r.engine.embed(["text"]).backend == "native"
    assert r.ollama.status().state is BackendState.READY  # it stays loaded
    begin(r, share=1.0)
    assert report(r).shared == 0  # a new trial begins anew


@pytest.mark.parametrize("kind", ["unload", "benchmark", "check", "quality", "coexist", "tune"])
def test_nothing_takes_the_candidate_away_or_keeps_it_busy_under_a_running_trial(r: Rig, kind: str) -> None:
    begin(r, shadow=1.0)
    start = {"unload": lambda: r.engine.unload("ollama")}.get(kind) or getattr(r.engine, kind)
    with pytest.raises(UsageError, match="not started") as refused:
        start()
    assert "ollama is on trial" in refused.value.why and "trial stop" in refused.value.remedy
    assert r.ollama.status().state is BackendState.READY and r.engine.status().jobs == ()
    for harmless in (r.engine.load("native"), r.engine.unload("native")):
        assert harmless.wait(30).state is JobState.DONE
    r.engine.stop_trial()
    assert r.engine.unload("ollama").wait(30).state is JobState.DONE


def test_closing_ends_it_with_the_figures_kept(tmp_path: Path) -> None:
    with rig(tmp_path, sampling=False) as r:
        begin(r, shadow=1.0)
    with rig(tmp_path, sampling=False) as again:
        assert again.engine.trial() is None
        assert again.engine.events(kinds=["trial"])[0].detail["ended_by"] == "the end of embedctl"


# By itself


def begin_by_itself(r: Rig, after: int) -> None:
    final = r.engine.start_trial(Trial("ollama", shadow=1.0, advance_after=after)).wait(30)
    assert final.state is JobState.DONE, final.failure


def compare(r: Rig, count: int, text: str = "text") -> None:
    """Ask until so many more requests of the active backend were compared, each before the next."""
    until = report(r).shadowed + count
    while (before := report(r).shadowed) < until:
        if r.engine.embed([text]).backend == "native":
            wait_until(lambda: report(r).shadowed > before)


def moves(r: Rig) -> list[str]:
    return [event.title for event in reversed(r.engine.events(kinds=["trial"]))]


def test_an_automatic_trial_goes_on_step_by_step_to_all_requests(r: Rig) -> None:
    begin_by_itself(r, after=3)
    for share in (0.05, 0.5, 1.0):
        compare(r, 2)
        wait_until(lambda: report(r).step_compared == 2)
        compare(r, 1)
        wait_until(lambda share=share: report(r).trial.share == share)
    assert {r.engine.embed(["text"]).backend for _ in range(5)} == {"ollama"}
    wait_until(lambda: len(moves(r)) == 4)
    assert moves(r)[1:] == [f"trial of ollama: {step}" for step in ("0% → 5%", "5% → 50%", "50% → 100%")]
    assert report(r).rolled_back == ""


@pytest.mark.parametrize("fault", ["other vectors", "a failed text", "an error", "a shared request"])
def test_a_fault_takes_an_automatic_trial_back_to_no_share_and_is_told(
    r: Rig, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    told: list[Mapping[str, object]] = []
    monkeypatch.setattr(r.engine._vitals._delivery, "send", told.append)
    begin_by_itself(r, after=1)
    compare(r, 1)
    wait_until(lambda: report(r).trial.share == 0.05)
    compare(r, 1)
    wait_until(lambda: report(r).trial.share == 0.5)
    r.ollama.twist = 1.0 if fault == "other vectors" else 0.0
    r.ollama.failing = {"text": "NaN"} if fault == "a failed text" else {}
    r.ollama.embed_error = (
        BackendError("It broke") if "text" not in fault and "vectors" not in fault else None
    )
    if fault == "a shared request":
        monkeypatch.setattr(r.engine._trials._running, "offer", lambda shadow: None)
    wait_until(lambda: r.engine.embed(["text"]).backend and report(r).rolled_back != "")
    found = report(r)
    assert (found.trial.share, found.trial.shadow, found.trial.advance_after) == (0.0, 1.0, None)
    said = {"other vectors": "cosine is", "a failed text": "could not embed a text"}.get(fault, "It broke")
    assert said in found.rolled_back
    wait_until(lambda: len(told) == 1)
    assert (told[0]["kind"], told[0]["condition"]) == ("trial", "rolled back") and said in str(told[0]["why"])
    event = r.engine.events(kinds=["trial"])[0]
    assert (event.title, event.severity) == ("trial of ollama rolled back from 50%", Severity.WARNING)
    assert {r.engine.embed(["text"]).backend for _ in range(5)} == {"native"}


def test_a_text_that_neither_can_embed_takes_no_trial_back(r: Rig) -> None:
    begin_by_itself(r, after=1)
    compare(r, 1)
    wait_until(lambda: report(r).trial.share == 0.05)
    r.native.failing = r.ollama.failing = {"poison": "NaN"}
    for _ in range(40):
        assert r.engine.embed(["poison"]).backend == "native"
    wait_until(lambda: report(r).shadowed + report(r).dropped >= 38)
    assert (report(r).failed, report(r).rolled_back, report(r).trial.share) == (0, "", 0.05)


# Figures


def answer(rows: list[list[float]], failed: tuple[int, ...] = ()) -> EmbedResult:
    failures = tuple(TextFailure(index, "NaN") for index in failed)
    return EmbedResult(np.asarray(rows, np.float32), "native", None, (), failures, 0.0)


def test_a_cosine_is_taken_where_both_have_a_vector() -> None:
    active = answer([[1, 0], [0, 1], [np.nan, np.nan], [2, 0]], failed=(2,))
    candidate = answer([[1, 0], [1, 1], [1, 0], [0, 0]])
    assert cosines(active, candidate) == pytest.approx([1.0, 0.5**0.5, 0.0])
    assert cosines(active, answer([[1, 0, 0]] * 4)) == [0.0, 0.0, 0.0]
    assert cosines(answer([[1, 0]], failed=(0,)), answer([[1, 0]])) == []


def test_figures_are_absent_until_there_is_something_to_take_them_from() -> None:
    found = Figures().report(Trial("ollama", 0.1), "native", 0.0)
    assert found.least_cosine is found.low_cosine is found.active_p50_ms is found.candidate_p95_ms is None
