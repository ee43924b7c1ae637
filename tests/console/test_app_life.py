"""Opening, quitting, sizes, notifications: the life of the console around its screens."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

import embedctl_console
from embedctl.errors import SettingsError, StoreNewerError, UsageError
from embedctl.records import BackendState, FileState
from embedctl_console.app import ConsoleApp
from embedctl_console.recent import _GAP as RECENT_GAP
from embedctl_console.screens.notices import LeavingScreen, ProblemScreen, TooSmallScreen
from embedctl_console.widgets.chart import TimeSeriesChart
from tests.support import canned
from tests.support.console import console, press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine


def notices(pilot: Pilot[None]) -> list[str]:
    return [f"{notice.title}: {notice.message}" for notice in pilot.app._notifications]


class Gate:
    """An engine that opens when told to."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.asked, self.may_open = threading.Event(), threading.Event()

    def __call__(self) -> FakeEngine:
        self.asked.set()
        assert self.may_open.wait(30)
        return self.engine


class TestOpening:
    async def test_something_is_shown_before_the_engine_is_open(self) -> None:
        gate = Gate()
        app = ConsoleApp(gate, demo=True, clock=gate.engine.clock, flush_every=0.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert "looking at this machine" in screen_text(pilot)
            assert "SIMULATED GB10 · demo" in screen_text(pilot)
            await pilot.press("l", "s", "2")  # none of these can be used yet
            gate.may_open.set()
            await settle(pilot)
            assert app.current_mode == "dashboard"
        assert [call for call in gate.engine.calls if call[0] in ("load", "switch")] == []

    @pytest.mark.parametrize("error", [StoreNewerError, SettingsError])
    async def test_an_engine_that_cannot_be_opened_says_why(self, error: type[StoreNewerError]) -> None:
        def fail() -> FakeEngine:
            raise error("It cannot be opened", why="for a reason", remedy="do this")

        app = ConsoleApp(fail, flush_every=0.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            assert isinstance(app.screen, ProblemScreen)
            for words in ("It cannot be opened", "for a reason", "do this"):
                assert words in screen_text(pilot)
            await press(pilot, "q")
        assert app.return_code == 2

    async def test_an_unknown_theme_is_told_and_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMBEDCTL_CONSOLE__THEME", "puce")
        async with running(FakeEngine()) as pilot:
            assert "No theme is called 'puce'" in notices(pilot)[0]
            assert pilot.app.theme == "embedctl-dark"

    async def test_the_theme_of_the_settings_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMBEDCTL_CONSOLE__THEME", "embedctl-light")
        async with running(FakeEngine()) as pilot:
            assert pilot.app.theme == "embedctl-light"
            await press(pilot, "t")
            assert pilot.app.theme == "embedctl-contrast"

    async def test_charts_begin_with_recorded_time(self) -> None:
        async with running(FakeEngine()) as pilot:
            chart = pilot.app.screen.query_one("#memory", TimeSeriesChart)
            assert len(chart._series[0].series) > 500


class TestQuitting:
    async def test_the_engine_is_closed_and_unsubscribed(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            await press(pilot, "q")
        assert engine.closed
        assert engine.subscribers == 0
        assert pilot.app.return_code == 0

    async def test_it_says_that_it_stops_the_workers(self) -> None:
        engine, may_close = FakeEngine(), threading.Event()
        close: Callable[[], None] = engine.close
        engine.close = lambda: (may_close.wait(30), close())[-1]  # type: ignore[method-assign]
        async with running(engine) as pilot:
            await pilot.press("q")
            await pilot.pause()
            assert isinstance(pilot.app.screen, LeavingScreen)
            assert "Stopping workers" in screen_text(pilot)
            may_close.set()
            await settle(pilot)
        assert engine.closed

    async def test_a_second_time_it_does_not_wait(self) -> None:
        engine, never = FakeEngine(), threading.Event()
        engine.close = lambda: never.wait(30)  # type: ignore[assignment,method-assign]
        async with running(engine) as pilot:
            await pilot.press("q")
            await pilot.pause()
            await pilot.press("q")
            await pilot.pause()
            assert pilot.app._exit
        never.set()

    async def test_running_jobs_are_asked_about(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            await press(pilot, "b", "q")
            assert "Benchmark quick" in screen_text(pilot)
            await press(pilot, "n")
            assert not engine.closed
            await press(pilot, "q", "y")
        assert engine.closed

    async def test_ctrl_c_works_in_a_dialog(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            await press(pilot, "s", "ctrl+c")
        assert engine.closed

    async def test_quitting_while_the_engine_opens_closes_it_then(self) -> None:
        gate = Gate()
        app = ConsoleApp(gate, clock=gate.engine.clock, flush_every=0.0)
        async with app.run_test() as pilot:
            await pilot.pause()
            await pilot.press("q")
            await pilot.pause()
            assert not gate.engine.closed
            gate.may_open.set()
            await settle(pilot)
        assert gate.engine.closed

    async def test_an_engine_that_never_opens_does_not_keep_the_console(self) -> None:
        gate = Gate()
        app = ConsoleApp(gate, clock=gate.engine.clock, flush_every=0.0)
        async with app.run_test() as pilot:
            await pilot.pause()
            await pilot.press("q")
            await pilot.pause()
            await pilot.press("q")
            await pilot.pause()
            assert app._exit
        gate.may_open.set()

    def test_a_crash_closes_the_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = FakeEngine()

        def crash(self: ConsoleApp, **_: object) -> None:
            self._engine = engine
            raise RuntimeError("a bug")

        monkeypatch.setattr(ConsoleApp, "run", crash)
        with pytest.raises(RuntimeError, match="a bug"):
            embedctl_console.main(lambda: engine)
        assert engine.closed

    @pytest.mark.parametrize(("slow", "every", "glides"), [(False, 0.25, True), (True, 4.0, False)])
    def test_on_a_slow_line_news_are_drawn_seldom(
        self, monkeypatch: pytest.MonkeyPatch, slow: bool, every: float, glides: bool
    ) -> None:
        made: list[ConsoleApp] = []
        monkeypatch.setattr(ConsoleApp, "run", lambda app, **_: made.append(app))
        embedctl_console.main(FakeEngine, slow=slow)
        assert made[0]._bridge.interval == every < RECENT_GAP, "a live line does not fall apart"
        assert (made[0].animation_level != "none") is glides


class TestSize:
    async def test_a_small_terminal_is_told_and_recovers(self) -> None:
        async with running(FakeEngine(), (59, 16)) as pilot:
            assert isinstance(pilot.app.screen, TooSmallScreen)
            assert "59×16" in screen_text(pilot)
            await pilot.resize_terminal(80, 24)
            await settle(pilot)
            assert "1 Dash" in screen_text(pilot)
            await pilot.resize_terminal(80, 10)
            await settle(pilot)
            assert "too small" in screen_text(pilot)

    async def test_a_small_terminal_can_be_left(self) -> None:
        engine = FakeEngine()
        async with running(engine, (40, 10)) as pilot:
            await press(pilot, "q")
        assert engine.closed


class TestJobs:
    async def test_the_end_of_a_job_is_told(self) -> None:
        engine = FakeEngine(native=canned.native(BackendState.UNLOADED))
        async with running(engine) as pilot:
            await press(pilot, "l")
            assert ("load", "native") in engine.calls
            engine.job("load").finish()
            await settle(pilot)
            assert notices(pilot) == ["Load native: done"]

    async def test_a_failure_is_told_with_its_remedy(self) -> None:
        engine = FakeEngine(native=canned.native(BackendState.UNLOADED))
        async with running(engine) as pilot:
            await press(pilot, "l")
            engine.job("load").fail("It broke", why="out of memory", remedy="free some")
            await settle(pilot)
            assert notices(pilot) == ["It broke: out of memory\nfree some"]

    async def test_a_job_that_cannot_start_is_told(self) -> None:
        engine = FakeEngine(native=canned.native(BackendState.UNLOADED))
        engine.errors["load"] = UsageError("Another job runs", why="a benchmark", remedy="wait for it")
        async with running(engine) as pilot:
            await press(pilot, "l")
            assert notices(pilot) == ["Another job runs: a benchmark\nwait for it"]

    async def test_x_cancels_what_runs(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            await press(pilot, "b")
            job = engine.job("benchmark")
            await press(pilot, "x")
            assert job.cancel_asked
            assert notices(pilot) == ["Benchmark quick: cancelled"]

    async def test_on_models_x_cancels_the_download_not_the_benchmark(self) -> None:
        engine = FakeEngine(model=canned.model(FileState.MISSING))
        async with running(engine) as pilot:
            await press(pilot, "2", "d", "b", "2")
            download, benchmark = engine.job("download"), engine.job("benchmark")
            await press(pilot, "x")
            assert download.cancel_asked
            assert not benchmark.cancel_asked


class TestPalette:
    async def test_it_runs_an_action(self) -> None:
        async with running(FakeEngine()) as pilot:
            await press(pilot, "ctrl+p", *"doctor", "enter")
            await settle(pilot)
            assert pilot.app.current_mode == "doctor"

    async def test_it_knows_the_screens_own_actions(self) -> None:
        engine = FakeEngine()
        async with running(engine) as pilot:
            await press(pilot, "2", "ctrl+p", *"verify", "enter")
            await settle(pilot)
            assert ("verify",) in engine.calls


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_when_it_is_ended_from_outside_the_engine_is_closed(number: signal.Signals, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from embedctl_console import main
from tests.support.fake_engine import FakeEngine
engine = FakeEngine()
engine.close = lambda: Path({str(closed)!r}).write_text("yes")
main(lambda: engine)
"""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        seen = b""
        while b"Dash" not in seen:
            seen += os.read(ours, 65536)
        if number == signal.SIGHUP:
            os.close(ours)  # as when a terminal's window or an SSH connection is closed
        child.send_signal(number)
        child.wait(30)
    finally:
        child.kill()
        child.wait()
    assert closed.read_text() == "yes"


def test_the_first_paint_imports_nothing_heavy() -> None:
    code = (
        "import sys, embedctl_console.app;"
        "heavy = {'numpy', 'pydantic', 'torch', 'transformers', 'sentence_transformers', 'sqlite3', 'httpx',"
        " 'huggingface_hub', 'rich.markdown'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "where",
    ["embedctl_console.state.ConsoleState.apply_all", "embedctl_console.widgets.top.machine_line"],
    ids=["taking it in", "showing it"],
)
async def test_a_mistake_in_news_ends_the_console_and_does_not_freeze_it(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def mistake(*_: object) -> None:
        raise RuntimeError("a mistake")

    engine = FakeEngine()
    with pytest.raises(RuntimeError, match="a mistake"):
        async with running(engine) as pilot:
            monkeypatch.setattr(where, mistake)
            engine.set_active("ollama")
            await settle(pilot)


async def test_the_top_line_tells_when_recording_stops_and_goes_on() -> None:
    engine = FakeEngine()
    async with running(engine) as pilot:
        for recording, words in ((False, "○ not recording"), (True, "● recording")):
            engine.recording = recording
            engine.tick()
            await settle(pilot)
            assert words in screen_text(pilot)


async def test_news_from_a_thread_reach_the_screen() -> None:
    engine = FakeEngine()
    app = console(engine)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        thread = threading.Thread(target=engine.set_backend, args=(canned.ollama(BackendState.UNAVAILABLE),))
        thread.start()
        thread.join()
        await settle(pilot)
        assert "No server answers" in screen_text(pilot)
