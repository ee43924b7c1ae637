"""Pictures of every screen in its main states, at three sizes, and in every theme."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from embedctl.errors import ConnectionLostError, StoreError, StoreNewerError
from embedctl.events import ConnectionChanged
from embedctl.records import (
    BackendState,
    Condition,
    Event,
    Failure,
    FileState,
    ProgressItem,
    Severity,
    StepRecord,
)
from embedctl.settings import ConsoleSettings, Settings
from embedctl_console.app import ConsoleApp
from embedctl_console.screens.notices import LeavingScreen
from embedctl_console.tasks import run_in_thread
from embedctl_console.themes import THEMES
from tests.support import canned
from tests.support.canned import GIB, NOW
from tests.support.console import console, press, settle
from tests.support.fake_engine import FakeEngine, fresh_engine

ALL = [(80, 24), (120, 40), (160, 50)]


def sizes(*chosen: tuple[int, int]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("size", chosen, ids=lambda size: f"{size[0]}x{size[1]}")


at_all_sizes = sizes(*ALL)
at_two_sizes = sizes(*ALL[:2])
"""For dialogs and passing states, which look on a wide screen as they do on a middling one."""


def picture(
    snap_compare: Any, engine: FakeEngine, size: tuple[int, int], *keys: str, then: Any = None
) -> bool:
    """Open the console, press keys, let `then` change something, and compare the picture."""

    async def before(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await press(pilot, *keys)
        if then is not None:
            then()
            await settle(pilot)

    return bool(snap_compare(console(engine), terminal_size=size, run_before=before))


class Hold:
    """Stands in the place of one of the engine's calls, and does not answer before the picture is taken."""

    def __init__(self) -> None:
        self._asked, self._may_answer = threading.Event(), threading.Event()

    def call(self, *_: object, **__: object) -> None:
        self._asked.set()
        self._may_answer.wait(60)

    def picture(self, snap_compare: Any, engine: FakeEngine, size: tuple[int, int], *keys: str) -> bool:
        """As `picture`, once the last key has led to the call."""

        async def before(pilot: Pilot[None]) -> None:
            await settle(pilot)
            await press(pilot, *keys[:-1])
            await pilot.press(keys[-1])
            assert await run_in_thread(self._asked.wait, 60)
            await pilot.pause()

        try:
            return bool(snap_compare(console(engine), terminal_size=size, run_before=before))
        finally:
            self._may_answer.set()


@at_all_sizes
def test_dashboard_of_a_fresh_machine(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, fresh_engine(machine=canned.without_gpu()), size)


@at_all_sizes
def test_dashboard_with_both_backends_loaded(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size)


@at_two_sizes
def test_dashboard_in_the_demo_with_a_failed_backend(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(demo=True, native=canned.native(BackendState.FAILED), active="ollama")
    assert picture(snap_compare, engine, size)


@at_two_sizes
def test_dashboard_while_a_backend_loads(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(
        native=canned.native(BackendState.UNLOADED), ollama=canned.ollama(BackendState.UNLOADED)
    )
    assert picture(
        snap_compare, engine, size, "l", then=lambda: engine.job("load").progress("canary", done=4, total=12)
    )


@sizes((120, 40))
def test_dashboard_of_a_machine_that_does_badly(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.conditions = {"native": Condition.THROTTLED, "ollama": Condition.HUNG}
    engine.changes = ("ollama backend_version: 0.13.5 → 0.14.0",)
    heat = Event(NOW, "throttling", "the GPU is slowed down by heat", severity=Severity.WARNING)
    assert picture(snap_compare, engine, size, then=lambda: engine.record(heat))


@sizes((80, 24))
def test_dashboard_when_the_connection_is_lost(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.stored_studies.clear()
    lost = ConnectionChanged(
        False, "the service (PID 4711)", "its socket is gone", "start it: embedctl serve"
    )
    assert picture(snap_compare, engine, size, then=lambda: engine.publish(lost))


@sizes((59, 15))
def test_a_terminal_that_is_too_small(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size)


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES[1:]])
def test_dashboard_in_every_other_theme(snap_compare: Any, theme: str) -> None:
    engine = FakeEngine(demo=True)
    engine.settings_ = Settings(console=ConsoleSettings(theme=theme))
    assert picture(snap_compare, engine, (100, 46))


@at_two_sizes
def test_models_before_the_download(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, fresh_engine(), size, "2")


@at_all_sizes
def test_models_during_the_download(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = fresh_engine()

    def halfway() -> None:
        files = engine.model_status.files
        items = [
            ProgressItem(file.path, 0.43 * (file.size or 0), file.size, "running")
            if file.path == "pytorch_model.bin"
            else ProgressItem(file.path, file.size or 0, file.size, "done")
            if (file.size or 0) > 1_000_000
            else ProgressItem(file.path, 0, file.size, "waiting")
            for file in files
        ]
        engine.job("download").progress(
            "fetching", done=0.44 * 2.13 * GIB, total=2.13 * GIB, rate=112e6, eta=11.4, items=items
        )

    assert picture(snap_compare, engine, size, "2", "d", then=halfway)


@at_two_sizes
def test_models_after_a_failed_download(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = fresh_engine(model=canned.model(FileState.MISSING, partial={"pytorch_model.bin": 1_100_000_000}))

    def fail() -> None:
        engine.job("download").fail(
            "The disk has too little room",
            why="2.3 GB are needed in /home/ada/.cache/huggingface, 0.4 GB are free",
            remedy="make room, or set HF_HOME to a larger disk",
        )

    assert picture(snap_compare, engine, size, "2", "d", then=fail)


@at_two_sizes
def test_models_complete(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(native=canned.native(BackendState.UNLOADED))
    assert picture(snap_compare, engine, size, "2")


@at_two_sizes
def test_removal_is_asked_about(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "2", "r")


@at_two_sizes
def test_switch_plan(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.UNLOADED))
    engine.plan = canned.switch_plan(warnings=("Ollama will unload bge-m3 after 30 min without requests",))
    assert picture(snap_compare, engine, size, "s")


@at_all_sizes
def test_switch_running(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.UNLOADED))
    assert picture(
        snap_compare,
        engine,
        size,
        "s",
        "enter",
        then=lambda: engine.job("switch").steps(canned.switch_steps(3)),
    )


@at_two_sizes
def test_switch_done(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.UNLOADED))

    def end() -> None:
        job = engine.job("switch")
        job.steps(canned.switch_steps(8))
        job.finish()

    assert picture(snap_compare, engine, size, "s", "enter", then=end)


@at_two_sizes
def test_switch_rolled_back(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.UNLOADED))

    def end() -> None:
        failed = StepRecord("canary", "failed", 0.6, "3 of 12 vectors are not finite", int(3.9 * GIB))
        back = StepRecord("roll back", "done", 0.9, "ollama unloaded again", int(2.5 * GIB))
        job = engine.job("switch")
        job.steps((*canned.switch_steps(2, running=False), failed, back))
        job.fail(
            "ollama failed its canary; native is still active",
            why="3 of 12 known texts came back with values that are not finite",
            remedy="update Ollama, then switch again",
        )

    assert picture(snap_compare, engine, size, "s", "enter", then=end)


@at_two_sizes
def test_switch_with_an_obstacle(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine(ollama=canned.ollama(BackendState.UNAVAILABLE))
    engine.plan = canned.switch_plan(
        expected_bytes=None,
        expected_source="",
        fits_beside=None,
        obstacle=Failure(
            "Ollama does not answer", "nothing listens at http://127.0.0.1:11434", "start it: ollama serve"
        ),
    )
    assert picture(snap_compare, engine, size, "s")


@at_two_sizes
def test_benchmarks_without_runs(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, fresh_engine(), size, "3")


@at_all_sizes
def test_benchmarks_list_with_two_marked(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "3", "space", "down", "space")


@sizes((80, 24))
def test_the_choice_of_a_preset(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.stored_runs[7] = replace(engine.stored_runs[7], state="cancelled")
    assert picture(snap_compare, engine, size, "3", "p", "down")


@sizes((80, 24))
def test_benchmarks_with_one_to_go_on_with(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.stored_runs[7] = replace(engine.stored_runs[7], state="cancelled")
    assert picture(snap_compare, engine, size, "3")


@sizes((80, 24))
def test_benchmarks_that_cannot_be_read(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.errors["runs"] = StoreError(
        "The history cannot be read", why="database disk image is malformed", remedy="embedctl doctor"
    )
    assert picture(snap_compare, engine, size, "3")


@at_two_sizes
def test_benchmark_running(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()

    def halfway() -> None:
        engine.job("benchmark").progress("batch of 32", done=212, total=480, rate=5.1, eta=52.4)

    assert picture(snap_compare, engine, size, "b", then=halfway)


@at_all_sizes
def test_one_run(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "3", "enter")


@at_all_sizes
def test_two_runs_side_by_side(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "3", "space", "down", "space", "c")


@at_all_sizes
def test_doctor(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "7")


@sizes((80, 24))
def test_doctor_while_it_looks(
    snap_compare: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    engine, hold = FakeEngine(), Hold()
    monkeypatch.setattr(engine, "doctor", hold.call)
    assert hold.picture(snap_compare, engine, size, "7")


@sizes((80, 24))
def test_doctor_that_could_not_look(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = FakeEngine()
    engine.errors["doctor"] = ConnectionLostError(
        "The connection to the service (PID 4711) was lost",
        why="it ended, or the way to it broke",
        remedy="try again: the connection is made anew by itself once it is back",
    )
    assert picture(snap_compare, engine, size, "7")


@at_all_sizes
def test_help(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "9")


@at_two_sizes
def test_palette(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "ctrl+p")


@at_two_sizes
def test_the_question_before_quitting(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "b", "q")


@pytest.mark.parametrize("attached", [False, True], ids=["own", "attached"])
def test_leaving(snap_compare: Any, attached: bool) -> None:
    async def before(pilot: Pilot[None]) -> None:
        await settle(pilot)
        await pilot.app.push_screen(LeavingScreen(attached=attached))

    assert snap_compare(console(FakeEngine()), terminal_size=(80, 24), run_before=before)


@at_two_sizes
def test_an_engine_that_cannot_be_opened(snap_compare: Any, size: tuple[int, int]) -> None:
    def fail() -> FakeEngine:
        raise StoreNewerError(
            "/home/ada/.local/share/embedctl/history.db was written by a newer embedctl",
            why="its schema is version 9, this embedctl knows up to 4",
            remedy="update embedctl, or set EMBEDCTL_HOME to another folder",
        )

    app = ConsoleApp(fail, clock=lambda: NOW, flush_every=0.0)
    assert snap_compare(app, terminal_size=size, run_before=settle)
