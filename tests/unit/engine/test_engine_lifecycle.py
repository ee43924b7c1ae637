"""Who waits for whom when backends are loaded and unloaded, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedctl.backends.native import NativeBackend
from embedctl.demo.session import demo_model_folder
from embedctl.engine.memory import Room
from embedctl.engine.opening import open_engine
from embedctl.errors import BackendOutOfMemoryError
from embedctl.paths import Paths
from embedctl.progress import CancelToken, silent
from embedctl.records import BackendState, JobState
from embedctl.settings import Settings
from tests.support.engines import GIB, Rig, rig


@pytest.fixture
def r(tmp_path: Path) -> Iterator[Rig]:
    with rig(tmp_path, sampling=False) as made:
        yield made


@pytest.mark.parametrize("kind", ["load", "unload", "other load"])
def test_a_job_that_waits_for_the_load_of_a_request_can_be_cancelled(r: Rig, kind: str) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slowly(_: CancelToken) -> None:
        loading.set()
        assert go_on.wait(30)

    r.native.on_load = slowly
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(r.engine.embed, ["text"], backend="native")
        assert loading.wait(30)
        job = {
            "load": lambda: r.engine.load("native"),
            "unload": lambda: r.engine.unload("native"),
            "other load": lambda: r.engine.load("ollama"),
        }[kind]()
        job.cancel()
        assert job.wait(30).state is JobState.CANCELLED
        assert (asked.done(), r.native.calls, r.ollama.calls) == (False, ["load"], [])
        go_on.set()
        assert asked.result(30).backend == "native"
    assert r.native.status().state is BackendState.READY


def test_a_request_that_waited_for_a_restart_does_not_ask_for_the_memory_again(r: Rig) -> None:
    """An idle worker died and is being started again; what it takes leaves too little for a second one."""
    with ThreadPoolExecutor(1) as pool:
        with r.engine.admitted("native", CancelToken()):
            asked = pool.submit(r.engine.embed, ["text"], backend="native")
            while not r.engine._lifecycle._wanted:
                pass
            r.native.load(silent, CancelToken())
            r.engine._lifecycle._room = lambda: Room(64 * GIB, 8 * GIB, 0, 8 * GIB, "scripted")
        assert asked.result(30).backend == "native"
    assert not r.engine.events(kinds=["error", "load"])


def test_a_worker_that_starts_anew_by_itself_asks_for_the_memory_first(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"model": {"repo": str(demo_model_folder())}, "engine": {"memory_floor_gib": 1e6}}
    )
    engine = open_engine(sampling=False, settings=settings, paths=Paths.in_folder(tmp_path))
    try:
        native = engine._lifecycle.backend("native")
        assert isinstance(native, NativeBackend)
        with (
            pytest.raises(BackendOutOfMemoryError, match="too little memory"),
            native._admitted(CancelToken()),
        ):
            pass
    finally:
        engine.close()
