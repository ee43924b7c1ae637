from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl import EmbeddingService
from embedctl.errors import BackendError, BackendOutOfMemoryError, InvalidTextError, UsageError
from embedctl.events import EventRecorded, Message, SampleTaken
from embedctl.records import BackendState, EmbedResult, JobState, TextFailure
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
    with pytest.raises(UsageError, match="no backend 'tei'"):
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


def test_close_unloads_what_this_engine_loaded_and_nothing_else(tmp_path: Path) -> None:
    with rig(tmp_path) as r:
        r.engine.load("native").wait(30)
    assert r.native.calls == ["load", "unload", "close"]
    assert r.ollama.calls == ["close"]


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


def test_a_failed_load_is_an_error_on_the_time_line(r: Rig) -> None:
    seen: list[Message] = []
    r.engine.subscribe(seen.append)
    r.native.load_error = BackendError("It will not start", why="broken", remedy="mend it")
    final = r.engine.load("native").wait(30)
    assert final.failure is not None and final.failure.what == "It will not start"
    recorded = [m.event for m in seen if isinstance(m, EventRecorded)]
    assert recorded[-1].kind == "error"
    assert recorded[-1].detail["remedy"] == "mend it"


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
