from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl import EmbeddingService
from embedctl.engine import open_engine
from embedctl.engine.deadline import Deadline
from embedctl.errors import (
    BackendAnswerError,
    BackendError,
    BackendOutOfMemoryError,
    BackendUnavailableError,
    CanaryError,
    InvalidTextError,
    ModelMissingError,
    StoreError,
    UsageError,
)
from embedctl.events import EventRecorded, Message, SampleTaken
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.presets import PRESETS, Preset
from embedctl.paths import Paths
from embedctl.progress import CancelToken
from embedctl.records import BackendState, EmbedResult, JobState, Run, TextFailure
from embedctl.settings import Settings
from embedctl.store import Store
from tests.support.engines import GIB, Rig, rig
from tests.support.fake_backend import DIMENSION, vector_of


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path) as made:
        yield made


def test_the_first_embed_loads_the_active_backend_once_for_all_callers(r: Rig) -> None:
    threads = [threading.Thread(target=r.engine.embed, args=([f"text {n}"],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert r.native.calls == ["load"]
    assert r.native.embedded == 8


def test_embed_can_name_a_backend_and_an_unknown_one_is_refused(r: Rig) -> None:
    assert r.engine.embed(["a"], backend="ollama").backend == "ollama"
    assert r.engine.status().active == "native"
    with pytest.raises(UsageError, match=r"no backend 'tei'.*native or ollama"):
        r.engine.embed(["a"], backend="tei")


def test_a_load_that_would_break_the_memory_floor_is_refused_before_it_starts(r: Rig) -> None:
    r.probe.others = r.probe.total - 9 * GIB
    assert r.engine._latest.wait_until(lambda s: (s.get("host_memory_available") or 0) < 10 * GIB, 10)
    with pytest.raises(BackendOutOfMemoryError) as caught:
        r.engine.embed(["a"])
    assert "8.0 GiB are kept free" in caught.value.why
    assert r.native.calls == []


def test_unload_waits_for_requests_in_flight(r: Rig) -> None:
    r.engine.load("native").wait(30)
    r.native.gate = threading.Event()
    asker = threading.Thread(target=r.engine.embed, args=(["a"],))
    asker.start()
    job = r.engine.unload("native")
    with pytest.raises(TimeoutError):
        job.wait(0.05)
    r.native.gate.set()
    assert job.wait(30).state is JobState.DONE
    asker.join(30)
    assert r.native.status().state is BackendState.UNLOADED


def test_close_leaves_it_to_each_backend_what_is_its_own_to_unload(tmp_path: Path) -> None:
    """`unload` takes a model from Ollama whoever loaded it; `close` ends what the backend started."""
    with rig(tmp_path) as r:
        r.engine.load("native").wait(30)
    assert r.native.calls == ["load", "close"]
    assert r.ollama.calls == ["close"]


def test_one_part_that_cannot_be_closed_does_not_leave_the_others_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise StoreError("The history cannot be closed")

    with rig(tmp_path, sampling=False) as r:
        monkeypatch.setattr(r.engine._parts.probe, "close", broken)
        with pytest.raises(StoreError):
            r.engine.close()
        assert "close" in r.native.calls and "close" in r.ollama.calls
        with pytest.raises(StoreError, match="closed"):
            r.engine.events()


def test_nothing_is_loaded_for_a_request_that_comes_after_the_end(tmp_path: Path) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.engine.close()
        with pytest.raises(UsageError, match="was closed"):
            r.engine.embed(["late"])
    assert "load" not in r.native.calls


def test_a_load_that_a_request_waits_for_ends_with_the_engine(tmp_path: Path) -> None:
    outcomes: list[Exception] = []
    entered = threading.Event()

    def wait_for_the_end(cancel: CancelToken) -> None:
        entered.set()
        assert cancel.wait(30)

    with rig(tmp_path, sampling=False) as r:
        r.native.on_load = wait_for_the_end

        def ask() -> None:
            try:
                r.engine.embed(["a"])
            except BackendError as error:
                outcomes.append(error)

        asker = threading.Thread(target=ask)
        asker.start()
        assert entered.wait(30)
    asker.join(30)
    assert "embedctl is closing" in str(outcomes[0])


def test_without_a_sampler_the_memory_floor_holds_all_the_same(tmp_path: Path) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.probe.others = r.probe.total - 9 * GIB
        with pytest.raises(BackendOutOfMemoryError):
            r.engine.embed(["a"])
        r.probe.others = r.probe.total - 11 * GIB
        assert r.engine.embed(["a"]).backend == "native"


def test_two_loads_at_once_do_not_count_the_same_memory(tmp_path: Path) -> None:
    """11 GiB are available, 8 of them the floor: one backend of 2 GiB fits, and not the other beside it."""
    with rig(tmp_path, sampling=False) as r:
        r.probe.others = r.probe.total - 11 * GIB
        entered, release = threading.Event(), threading.Event()

        def wait_there(_: CancelToken) -> None:
            entered.set()
            assert release.wait(30)

        r.native.on_load = wait_there
        first = threading.Thread(target=r.engine.embed, args=(["a"],))
        first.start()
        assert entered.wait(30)
        refused: list[Exception] = []

        def second() -> None:
            try:
                r.engine.embed(["b"], backend="ollama")
            except BackendOutOfMemoryError as error:
                refused.append(error)

        other = threading.Thread(target=second)
        other.start()
        other.join(0.05)  # it waits for the load that was there first
        release.set()
        first.join(30)
        other.join(30)
    assert len(refused) == 1
    assert r.ollama.calls == ["close"]


def test_a_benchmark_does_not_take_a_backend_from_those_who_began_to_use_it(tmp_path: Path) -> None:
    settings = Settings.model_validate({"engine": {"drain_timeout_s": 0.05}})
    with rig(tmp_path, settings, sampling=False) as r, r.engine._traffic.request("native", 1, Deadline(None)):
        assert r.engine.benchmark(backends=["native", "native"]).wait(60).state is JobState.DONE
        assert r.native.status().state is BackendState.READY


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> str:
    """A preset that takes a moment."""
    stage = ClosedLoop("one text", 1, per_block=2, blocks=2, budget=1.0)
    monkeypatch.setitem(PRESETS, "smoke", Preset((stage,), limit=30.0))
    return "smoke"


def test_backends_that_do_not_fit_at_once_are_measured_in_turns(tmp_path: Path, smoke: str) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.engine.load("native").wait(30)
        r.probe.others = r.probe.total - 2 * GIB - 9 * GIB  # 9 GiB available beside native's 2, floor 8
        final = r.engine.benchmark(preset=smoke).wait(60)
        assert final.state is JobState.DONE, final.failure
        assert isinstance(final.result, Run)
        assert final.result.backends == ("native", "ollama")
        assert {row.backend for row in final.result.measurements} == {"native", "ollama"}
        assert final.result.comparisons == ()
        assert "could not be interleaved" in final.result.notes[0]
        assert r.engine.run(final.result.id).notes == final.result.notes
        assert r.native.calls[-3:] == ["load", "unload", "load"]
        assert r.ollama.calls == ["load", "unload"]
        assert r.native.status().state is BackendState.READY


def test_turns_take_no_backend_from_applications_that_use_it(tmp_path: Path, smoke: str) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
        r.engine.embed(["an application"])
        final = r.engine.benchmark(preset=smoke).wait(60)
        assert final.failure is not None and "applications are using it" in final.failure.why
        assert "unload" not in r.native.calls
        (kept,) = r.engine.runs()
        assert (kept.state, kept.backends) == ("failed", ("native", "ollama"))
        assert [row.backend for row in r.engine.run(kept.id).measurements] == ["native"]


def test_turns_that_were_broken_off_are_gone_on_with(tmp_path: Path, smoke: str) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.engine.load("native").wait(30)
        r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
        job = r.engine.benchmark(preset=smoke)
        r.ollama.on_embed = lambda texts: job.cancel()
        assert job.wait(60).state is JobState.CANCELLED
        (cut,) = r.engine.runs()
        before = r.engine.run(cut.id)
        assert [row.backend for row in before.measurements] == ["native"]

        r.ollama.on_embed = lambda texts: None
        r.native.on_embed = lambda texts: pytest.fail("native's turn was over")
        whole = r.engine.resume_benchmark(cut.id).wait(60).result
        assert isinstance(whole, Run)
        assert (whole.id, whole.state, whole.backends) == (cut.id, "done", ("native", "ollama"))
        assert [row.backend for row in whole.measurements] == ["native", "ollama"]
        assert whole.measurements[0] == before.measurements[0]
        assert whole.comparisons == () and len(whole.fingerprints) == 2
        assert r.engine.run(cut.id) == whole


def test_a_run_side_by_side_is_not_gone_on_with_in_turns(tmp_path: Path, smoke: str) -> None:
    settings = Settings.model_validate({"engine": {"settle_timeout_s": 0}})
    with rig(tmp_path, settings, sampling=False) as r:
        whole = r.engine.benchmark(preset=smoke).wait(60).result
        assert isinstance(whole, Run)
        cut = r.engine.add_run(dataclasses.replace(whole, state="cancelled", measurements=()))
        r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
        failure = r.engine.resume_benchmark(cut.id).wait(60).failure
        assert failure is not None and "no longer fit into memory at once" in failure.what
        assert "side by side" in failure.why and "start a new run" in failure.remedy


def test_a_benchmark_does_without_a_backend_that_does_not_answer(tmp_path: Path, smoke: str) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.ollama.load_error = BackendUnavailableError("Ollama does not answer", why="connection refused")
        run = r.engine.benchmark(preset=smoke).wait(60).result
        assert isinstance(run, Run) and run.backends == ("native",)
        assert run.notes[0] == "ollama: n/a, Ollama does not answer: connection refused"
        named = r.engine.benchmark(preset=smoke, backends=["native", "ollama"]).wait(60)
        assert named.failure is not None and named.failure.what == "Ollama does not answer"
        r.native.load_error = BackendUnavailableError("The GPU is gone")
        assert r.engine.benchmark(preset=smoke).wait(60).state is JobState.FAILED


@pytest.mark.parametrize(
    "error",
    [
        ModelMissingError("Ollama has no bge-m3", why="it was never pulled"),
        CanaryError("Ollama's vectors are wrong", why="not finite"),
    ],
)
def test_a_benchmark_does_without_a_backend_that_cannot_be_loaded(
    tmp_path: Path, smoke: str, error: BackendError
) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.ollama.load_error = error
        run = r.engine.benchmark(preset=smoke).wait(60).result
        assert isinstance(run, Run) and (run.backends, run.state) == (("native",), "done")
        assert run.notes[0] == f"ollama: n/a, {error.sentence}"
        named = r.engine.benchmark(preset=smoke, backends=["native", "ollama"]).wait(60)
        assert named.failure is not None and named.failure.what == error.what


def test_no_time_is_refused_at_once(r: Rig, smoke: str) -> None:
    for minutes in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="are no time"):
            r.engine.benchmark(preset=smoke, minutes=minutes)


def test_memory_of_what_was_just_unloaded_may_come_back_before_a_load_is_refused(tmp_path: Path) -> None:
    with rig(tmp_path, sampling=False) as r:
        r.engine.load("native").wait(30)
        r.probe.others = r.probe.total - 2 * GIB - 9 * GIB
        r.probe.lingering["native"] = 2 * GIB
        r.engine.unload("native").wait(30)
        threading.Timer(0.2, r.probe.lingering.clear).start()
        assert r.engine.load("ollama").wait(30).state is JobState.DONE


def test_an_unknown_preset_is_refused_before_anything_is_loaded(r: Rig) -> None:
    with pytest.raises(UsageError, match="no preset 'nonsense'"):
        r.engine.benchmark(preset="nonsense")
    assert r.native.calls == []


def test_samples_and_events_are_there_at_the_next_start(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.engine.load("native").wait(30)
        stored = threading.Event()
        r.engine.subscribe(lambda m: stored.set() if isinstance(m, SampleTaken) else None)
        assert stored.wait(30)
    with rig(tmp_path) as again:
        assert again.engine.recorded_span() is not None
        kinds = [event.kind for event in again.engine.events()]
    assert kinds[:4] == ["start", "stop", "load", "start"]


def test_an_engine_that_does_not_record_leaves_no_trace(tmp_path: Path) -> None:
    with rig(tmp_path, recording=False) as r:
        assert r.engine._latest.wait_until(lambda _: True, 10)
        assert r.engine.recorded_span() is None
        assert r.engine.events() == ()
        assert not r.engine.status().recording


def test_each_sample_tells_whether_those_before_it_were_stored(
    r: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = {True: threading.Event(), False: threading.Event()}
    r.engine.subscribe(lambda m: heard[m.recording].set() if isinstance(m, SampleTaken) else None)
    assert heard[True].wait(30)
    heard[False].clear()

    def full(_: object) -> None:
        raise StoreError("The disk is full")

    monkeypatch.setattr(r.engine._parts.store, "add_sample", full)
    assert heard[False].wait(30)
    heard[True].clear()
    monkeypatch.undo()
    assert heard[True].wait(30)


def test_a_failed_load_is_an_error_on_the_time_line(r: Rig) -> None:
    seen: list[Message] = []
    r.engine.subscribe(seen.append)
    r.native.load_error = BackendError("It will not start", why="broken", remedy="mend it")
    final = r.engine.load("native").wait(30)
    assert final.failure is not None and final.failure.what == "It will not start"
    recorded = [m.event for m in seen if isinstance(m, EventRecorded)]
    assert recorded[-1].kind == "error"
    assert recorded[-1].detail["remedy"] == "mend it"


def test_a_failed_pull_is_an_error_on_the_time_line(tmp_path: Path) -> None:
    def refused(*_: object) -> None:
        raise BackendError("The library has no such model", remedy="correct model.ollama_tag")

    with rig(tmp_path, sampling=False) as r:
        r.engine._model_work._parts = dataclasses.replace(r.engine._parts, pull=refused)
        assert r.engine.pull().wait(30).state is JobState.FAILED
        [event] = r.engine.events(kinds=["error"])
    assert (event.backend, event.detail["what"]) == ("ollama", "The library has no such model")


def test_a_model_in_use_is_not_removed(r: Rig) -> None:
    r.engine.load("native").wait(30)
    refused = r.engine.remove_model().wait(30)
    assert refused.failure is not None and refused.failure.remedy == "unload native first"
    r.engine.unload("native").wait(30)
    assert r.engine.remove_model().wait(30).result == 7


def test_a_vector_too_few_is_an_error_and_never_paired_with_texts(
    r: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = r.engine.embed(["a", "b"])
    monkeypatch.setattr(r.native, "embed", lambda request: short)
    with pytest.raises(BackendAnswerError, match="2 vectors for 3 texts"):
        r.engine.embed(["a", "b", "c"])


# The service object


def test_the_service_returns_lists_of_floats_in_order(r: Rig) -> None:
    service = EmbeddingService(engine=r.engine)
    vectors = service.embed(["one", "two"])
    assert vectors[1] == pytest.approx(vector_of("two").tolist())
    assert len(service.embed("one")) == 1
    assert service.dimension == DIMENSION
    assert service.embed_array(["one", "two", "three"]).shape == (3, DIMENSION)


async def test_the_service_has_an_async_twin(r: Rig) -> None:
    service = EmbeddingService(backend="ollama", engine=r.engine)
    assert await service.aembed(["one"]) == service.embed(["one"])
    assert service.backend == "ollama"


def test_one_bad_text_is_an_error_that_names_it(r: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    good = r.engine.embed(["a", "b"])
    bad = EmbedResult(good.vectors, "native", 2, (), (TextFailure(1, "not finite"),), 0.1)
    monkeypatch.setattr(r.native, "embed", lambda request: bad)
    with pytest.raises(InvalidTextError, match="Text 1 could not be embedded") as caught:
        EmbeddingService(engine=r.engine).embed(["a", "b"])
    assert caught.value.index == 1


@pytest.mark.parametrize(("flag", "active"), [(None, "ollama"), ("", "ollama"), ("native", "native")])
def test_the_migration_flag_goes_before_the_remembered_choice_unless_it_is_empty(
    monkeypatch: pytest.MonkeyPatch, flag: str | None, active: str
) -> None:
    paths = Paths.find()
    store = Store.open(paths.database, retention=Settings().history)
    store.set_state("active_backend", "ollama")
    store.close()
    if flag is not None:
        monkeypatch.setenv("EMBEDDING_BACKEND", flag)
    engine = open_engine(sampling=False)
    try:
        assert engine.status().active == active
    finally:
        engine.close()
