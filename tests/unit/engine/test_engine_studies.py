"""A check as a job of the engine: kept, told on the time line, everything afterwards as it was."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.errors import BackendError, BackendUnavailableError, CanaryError, UsageError
from embedctl.lab.check_texts import CheckTexts
from embedctl.progress import CancelToken
from embedctl.records import ENVIRONMENT, BackendState, JobState, Severity, Study
from embedctl.settings import Settings
from embedctl.study_data import check_report, data_of, of_both, report_of
from tests.support import canned
from tests.support.check_targets import few_texts
from tests.support.engines import GIB, Rig, rig


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(own: list[str] | None, name: str) -> CheckTexts:
        return few_texts(own)

    monkeypatch.setattr("embedctl.lab.check_texts.texts_for_check", few)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, sampling=False) as made:
        yield made


def checked(bench: Rig, **how: list[str]) -> Study:
    update = bench.engine.check(**how).wait(60)
    assert update.state is JobState.DONE, update.failure
    assert isinstance(update.result, Study)
    return update.result


def test_a_check_is_kept_and_told_and_leaves_nothing_loaded(bench: Rig) -> None:
    study = checked(bench)
    assert (study.kind, study.verdict, study.backends) == ("check", "safe", ("native", "ollama"))
    assert bench.engine.study(study.id) == study
    assert [summary.id for summary in bench.engine.studies("check")] == [study.id]
    assert [mark.backend for mark in study.fingerprints] == ["native", "ollama"]
    assert study.fingerprints[0].driver == "580"
    around = study.environment
    assert around["kernel"] == platform.release() and around["embedctl"]
    assert {"governor", "co_tenants", "load_average"} <= around.keys()
    assert replace(study, data=data_of(check_report(study))).environment == {}, "as they were kept before"
    [event] = bench.engine.events(kinds=["check"])
    assert (event.severity, event.detail) == (Severity.OK, {"study": study.id, "seconds": study.seconds})
    for backend in (bench.native, bench.ollama):
        assert backend.calls == ["load", "unload"]
    with pytest.raises(UsageError, match="There is no study 99"):
        bench.engine.study(99)


def test_one_at_a_time_and_those_that_are_loaded_first(bench: Rig) -> None:
    bench.engine.load("ollama").wait(10)
    embedded: list[int] = []
    bench.native.on_load = lambda cancel: embedded.append(bench.ollama.embedded)
    study = checked(bench)
    assert embedded == [bench.ollama.embedded], "native came when ollama was through"
    assert embedded[0] > 100
    assert bench.ollama.status().state is BackendState.READY, "it was loaded before"
    assert bench.native.status().state is BackendState.UNLOADED
    assert study.backends == ("native", "ollama"), "named in their usual order all the same"


def test_two_that_do_not_fit_together_are_checked_in_turns(bench: Rig) -> None:
    bench.probe.held = 30 * GIB
    bench.native.expected_bytes = 30 * GIB
    bench.engine.load("ollama").wait(10)
    assert checked(bench).verdict == "safe"
    assert bench.ollama.calls == ["load", "load", "unload", "load"], "checked, put aside, brought back"
    assert bench.ollama.status().state is BackendState.READY


def test_a_backend_that_was_put_aside_keeps_its_requests_and_comes_back_after_a_cancel(bench: Rig) -> None:
    bench.probe.held = 30 * GIB
    bench.native.expected_bytes = 30 * GIB
    bench.engine.load("ollama").wait(10)
    job = bench.engine.check(backends=["native"])
    answers: list[str] = []
    asker = threading.Thread(
        target=lambda: answers.append(bench.engine.embed(["x"], backend="ollama", timeout=30).backend)
    )

    def cancel_under_way(cancel: CancelToken) -> None:
        if bench.ollama.status().state is BackendState.UNLOADED:
            asker.start()
            job.cancel()

    bench.native.on_load = cancel_under_way
    assert job.wait(60).state is JobState.CANCELLED
    asker.join(30)
    assert answers == ["ollama"]
    assert bench.ollama.calls == ["load", "unload", "load"], "its request made no load of its own"
    assert bench.native.status().state is BackendState.UNLOADED


def test_the_active_backend_is_not_put_aside(bench: Rig) -> None:
    bench.probe.held = 30 * GIB
    bench.ollama.expected_bytes = 30 * GIB
    bench.engine.load("native").wait(10)
    study = checked(bench)
    assert study.verdict == "undecided"
    assert "ollama could not be loaded: ollama was not loaded: too little memory" in study.headline
    assert bench.native.status().state is BackendState.READY


def test_vectors_of_another_model_are_not_safe(bench: Rig) -> None:
    bench.ollama.twist = 0.5
    study = checked(bench)
    assert study.verdict == "not safe"
    assert bench.engine.events(kinds=["check"])[0].severity is Severity.ERROR
    report = check_report(study)
    assert report.worst[0].cosine == min(row.cosine for row in report.worst)


def test_a_failed_canary_is_an_answer(bench: Rig) -> None:
    bench.ollama.load_error = CanaryError("Ollama's vectors are wrong", why="different texts got the same")
    study = checked(bench)
    assert study.headline == "not safe: ollama failed after loading: different texts got the same"


def test_a_backend_that_is_not_there_leaves_the_question_open(bench: Rig) -> None:
    bench.ollama.preflight_error = BackendUnavailableError("Ollama does not answer")
    study = checked(bench)
    assert (study.verdict, study.backends) == ("undecided", ("native",))
    assert check_report(study).not_compared == "ollama could not be loaded: Ollama does not answer"
    bench.native.preflight_error = BackendError("no files")
    update = bench.engine.check().wait(60)
    assert update.failure is not None
    assert update.failure.what == "no files"


def test_one_backend_by_itself(bench: Rig) -> None:
    study = checked(bench, backends=["native"])
    assert study.headline == "undecided: only native was asked for"
    assert bench.ollama.calls == []
    with pytest.raises(UsageError, match="no backend 'other'"):
        bench.engine.check(backends=["other"])
    with pytest.raises(UsageError, match="no text"):
        bench.engine.check(texts=[])


def test_a_cancelled_check_keeps_nothing_and_unloads(bench: Rig) -> None:
    job = bench.engine.check()
    bench.ollama.on_load = lambda cancel: job.cancel()
    assert job.wait(60).state is JobState.CANCELLED
    assert bench.engine.studies() == ()
    assert bench.native.status().state is BackendState.UNLOADED


def test_progress_is_counted_over_both_backends(bench: Rig) -> None:
    seen: list[tuple[float, float]] = []
    bench.bus.subscribe(
        lambda message: (
            seen.append((message.update.done, message.update.total))
            if getattr(getattr(message, "update", None), "done", None) is not None
            else None
        )
    )
    checked(bench)
    [total] = {total for _, total in seen}
    done = [value for value, _ in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert total / 2 < done[-1] < total


def test_what_has_changed_since_the_last_check(bench: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench.engine.check_changes() is None
    checked(bench)
    assert bench.engine.check_changes() == ()
    newer = bench.ollama.fingerprint()
    monkeypatch.setattr(
        bench.ollama, "fingerprint", lambda: replace(newer, backend_version="2.0", dtype=None)
    )
    assert bench.engine.check_changes() == ("ollama backend_version: 1.0 → 2.0",)

    def gone(_: CancelToken) -> None:
        raise BackendUnavailableError("Ollama is gone")

    bench.ollama.on_load = gone
    assert checked(bench).verdict == "undecided"
    assert bench.engine.check_changes() is None, "an open question is asked again"


def test_a_changed_setting_is_a_change(tmp_path: Path) -> None:
    with rig(tmp_path, sampling=False) as made:
        checked(made)
    settings = Settings.model_validate({"native": {"dtype": "float32"}})
    with rig(tmp_path, settings, sampling=False) as made:
        assert made.engine.check_changes() == ("native.dtype: auto → float32",)


def test_a_report_comes_back_from_its_data_as_it_was(bench: Rig) -> None:
    study = checked(bench)
    report = check_report(study)
    assert {**data_of(report), ENVIRONMENT: study.environment} == study.data
    assert report_of(type(report), study) == report
    with pytest.raises(ValueError, match="kind quality"):
        check_report(replace(study, kind="quality"))


def test_a_check_of_one_backend_is_not_the_last_check_of_both(bench: Rig) -> None:
    both = checked(bench)
    checked(bench, backends=["native"])
    assert bench.engine.check_changes() == ()
    newest = of_both(bench.engine.studies("check"))
    assert newest is not None and newest.id == both.id


def test_a_check_a_day_does_not_hide_what_else_the_claims_rest_on(bench: Rig) -> None:
    store = bench.engine._parts.store
    store.add_study(canned.quality_study())
    for day in range(1, 42):
        store.add_study(replace(canned.check_study(), at=canned.NOW + day * 86_400))
    claims = {one.id: one for one in bench.engine.claims().claims}
    assert claims["quality-alike"].evidence == ("study 1",)
