"""Record the README's tour anew: half a minute of the demo as one animated SVG.

    uv run python -m tests.tour [FILE]

Takes about six minutes. Everything in it is what the demo really did; only the machine is simulated, as the
screens say. What lasts minutes is shown in time lapse, and its caption says so.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from embedctl.engine.engine import Engine
from embedctl.engine.opening import open_engine
from embedctl.records import JobState
from embedctl_console.app import ConsoleApp
from embedctl_console.pace import strips_of
from embedctl_console.paint import cells_of
from tests.support.animation import Frame, animated
from tests.support.demo import Traffic, settled, until

SIZE = (104, 30)
DEFAULT_FILE = Path(__file__).resolve().parents[1] / "assets" / "tour.svg"
TITLE = "A tour of the console in the demo: dashboard, models, switch, benchmark, history, check"


class Recorder:
    """Takes frames of the app's screen; each stays for as many seconds as it is given."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[None]) -> None:
        self.frames: list[Frame] = []
        self._app = app
        self._pilot = pilot

    async def hold(self, caption: str, seconds: float) -> None:
        """The screen as it is once it has come to rest."""
        await self._pilot.pause()
        lines = [cells_of(strip, SIZE[0]) for strip in strips_of(self._app)]
        self.frames.append(Frame(lines, caption, seconds))

    async def press(self, key: str, caption: str, seconds: float) -> None:
        await self._pilot.press(key)
        await asyncio.sleep(0.8)  # what the key asks for comes from a thread
        await self.hold(caption, seconds)

    async def live(self, caption: str, seconds: float, *, every: float = 1.0) -> None:
        """The screen as it moves, in its own time."""
        for _ in range(round(seconds / every)):
            await asyncio.sleep(every)
            await self.hold(caption, every)

    async def lapse(self, caption: str, seconds: float, over: Callable[[], bool], *, frames: int = 6) -> None:
        """What happens until `over`, in `seconds`: as many frames, evenly from all that were seen."""
        begin, started, every = len(self.frames), time.monotonic(), 0.3
        while not over():
            assert time.monotonic() - started < 1200.0, "the demo did not get there"
            await asyncio.sleep(every)
            await self.hold(caption, 0.0)
            if len(self.frames) - begin > 8 * frames:  # a frame is large: go on with every other one
                del self.frames[begin::2]
                every *= 2
        taken = self.frames[begin:]
        chosen = [taken[n * len(taken) // frames] for n in range(min(frames, len(taken)))]
        each = seconds / max(1, len(chosen))
        self.frames[begin:] = [Frame(frame.lines, caption, each) for frame in chosen]


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FILE
    with tempfile.TemporaryDirectory() as home:
        os.environ["EMBEDCTL_HOME"] = home
        frames = asyncio.run(_tour())
    file.write_text(animated(frames, TITLE), encoding="utf-8")
    seconds = sum(frame.seconds for frame in frames)
    print(f"{file.name}: {seconds:.0f} s, {len(frames)} frames, {file.stat().st_size / 1000:.0f} kB")


async def _tour() -> list[Frame]:
    engine = open_engine(demo=True)
    app = ConsoleApp(lambda: engine, demo=True)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: app.state is not None)
        await _prepare(engine, pilot)
        recorder = Recorder(app, pilot)
        with Traffic(engine):
            await settled(pilot, 20)
            await _live(engine, recorder)
        await _look_back(engine, recorder)
    await asyncio.to_thread(engine.close)
    return recorder.frames


async def _prepare(engine: Engine, pilot: Pilot[None]) -> None:
    """What a first day leaves behind: the model, both backends loaded, a past."""
    for job in (engine.download, lambda: engine.load("native"), lambda: engine.load("ollama")):
        update = await asyncio.to_thread(job().wait, 240)
        assert update.state is JobState.DONE, update.failure
    await settled(pilot, 15)


async def _live(engine: Engine, recorder: Recorder) -> None:
    """The dashboard, the model and the switches, while requests come in."""
    hold, press, live, lapse = recorder.hold, recorder.press, recorder.live, recorder.lapse
    await live("embedctl --demo: the machine is simulated, the model and its vectors are real", 4)
    await press("2", "2  Models: exactly the files needed, each checked by its hash", 3)
    await press("1", "1  Dashboard: requests go to native", 1.5)
    await press("s", "s  Switch: what it will take, before anything happens", 3)
    await recorder.press("enter", "enter  preflight, load, canary, agreement, flip, drain, settle", 0.5)
    await lapse(
        "enter  preflight, load, canary, agreement, flip, drain, settle", 2.5,
        lambda: not engine.status().jobs,
    )  # fmt: skip
    await hold("The switch is done; no request was lost", 2)
    await press("escape", "Requests go to ollama now", 0.5)
    await live("Requests go to ollama now", 3)
    job = engine.switch("native", keep_both=True)
    await lapse("… and back to native", 1.5, lambda: job.update.state is JobState.DONE, frames=3)


async def _look_back(engine: Engine, recorder: Recorder) -> None:
    """What was measured, what was recorded, and what it comes to."""
    hold, press, lapse = recorder.hold, recorder.press, recorder.lapse

    def at_rest() -> bool:
        return not engine.status().jobs

    await press("b", "b  Benchmark: both backends in turns", 0.5)
    await lapse("b  Benchmark: both backends in turns (time lapse)", 3, at_rest, frames=8)
    await press("3", "3  Benchmarks: one line a run", 1)
    await press("enter", "enter  ratios with their intervals, and a verdict in words", 3)
    await press("4", "4  History: everything recorded, with marks where something happened", 2.5)
    for _ in range(3):
        await press("plus", "+  zoom in at the cursor", 0.6)
    await press("p", "p  to the event before: what led to this?", 2)
    await press("5", "5  Check", 0.5)
    await press("k", "k  Is it safe to switch? (time lapse)", 0.5)
    await lapse("k  Is it safe to switch? (time lapse)", 2, at_rest)
    await hold("The verdict, with its evidence", 4)


if __name__ == "__main__":
    main()
