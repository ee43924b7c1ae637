"""Prints how the console's memory grows over hours of running, with accelerated time.

Run it by hand: `python tests/console/bench_soak.py [hours] [samples per second] [trace]`. The scripted engine
lets its clock jump from sample to sample; the real app takes each one in, draws it, and is used as a person
would: screens are opened, charts zoomed, jobs run and end, backends are switched, things go wrong. Growth
is counted from the end of the first half hour, when most of what is kept for a while is full. With `trace`
the places that allocated what has been added are named, at three times the cost.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
import tracemalloc
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets._toast import ToastHolder

from embedctl.errors import EmbedctlError
from embedctl.records import BackendState, Event, Severity

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import canned
from tests.support.console import console, settle
from tests.support.fake_engine import FakeEngine

MIB = 2**20
_WARM = 1_800.0
_TOUR = (
    *("2", "3", "4", "plus", "minus", "5", "6", "7", "8", "9", "1"),
    *("m", "m", "m", "m", "m", "tab", "tab", "plus", "equals_sign"),
)
"""What is pressed once in ten minutes: every screen, and a chart's zoom."""


def rss() -> float:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def hours(engine: FakeEngine, pilot: Pilot[None], seconds: float, rate: float) -> None:
    """Let `seconds` pass; once a minute something happens."""
    until = engine.now + seconds
    minute = 0
    while engine.now < until:
        next_minute = engine.now + 60.0
        while engine.now < next_minute:
            engine.tick(1.0 / rate)
            await pilot.pause()
        minute += 1
        await _something(engine, pilot, minute)
        _forget(engine)


def _forget(engine: FakeEngine) -> None:
    """Drop what an engine has on the disk and this one in memory, but for the newest."""
    engine.calls.clear()
    del engine.stored_events[200:]
    for stored in (engine.stored_runs, engine.stored_studies):
        for key in sorted(stored)[:-10]:
            del stored[key]


async def _something(engine: FakeEngine, pilot: Pilot[None], minute: int) -> None:
    engine.record(Event(engine.now, "note", f"minute {minute}"))
    match minute % 10:
        case 1:
            handle = engine.benchmark()
            for done in range(0, 480, 24):
                handle.progress("batch of 32", done=done, total=480, rate=5.1, eta=52.4)
                engine.tick(0.25)
                await pilot.pause()
            handle.finish()
        case 3:
            engine.load("native").fail("It cannot be loaded", why="no memory", remedy="free some")
        case 5:
            engine.set_backend(canned.native(BackendState.FAILED))
            engine.record(Event(engine.now, "error", "the worker ended", "native", Severity.ERROR))
            engine.errors["health"] = EmbedctlError("It does not answer")
            engine.tick()
            await settle(pilot)
            del engine.errors["health"]
            engine.set_backend(canned.native())
        case 7:
            target = "ollama" if engine.active == "native" else "native"
            engine.set_active(target)
            engine.record(Event(engine.now, "switch", f"→ {target}", target))
            engine.check().finish()
        case 9:
            for key in _TOUR:
                await pilot.press(key)
                await settle(pilot)
            while len(pilot.app.screen_stack) > 1:
                await pilot.press("escape")
                await settle(pilot)
            await pilot.press("1")
            assert pilot.app.current_mode == "dashboard"
    await settle(pilot)
    for holder in pilot.app.screen.query(ToastHolder):  # notices vanish by the wall's clock, too late here
        await holder.remove()
    pilot.app.clear_notifications()


async def main(total_hours: float, rate: float, trace: bool) -> None:
    engine = FakeEngine()
    app = console(engine)
    async with app.run_test(size=(160, 50), notifications=True) as pilot:
        await settle(pilot)
        await hours(engine, pilot, _WARM, rate)
        gc.collect()
        if trace:
            tracemalloc.start(12)
            before = tracemalloc.take_snapshot()
        first, objects, began = rss(), len(gc.get_objects()), time.process_time()
        print(f"after {_WARM / 60:.0f} min: {first / MIB:.1f} MiB, {objects:,} objects")
        seconds = total_hours * 3600.0 - _WARM
        parts = max(1, round(seconds / 3600.0))
        for part in range(1, parts + 1):
            await hours(engine, pilot, seconds / parts, rate)
            gc.collect()
            print(
                f"after {(_WARM + part * seconds / parts) / 3600:.2f} h: {(rss() - first) / MIB:+.2f} MiB, "
                f"{len(gc.get_objects()) - objects:+,} objects, {time.process_time() - began:.0f} s of CPU",
                flush=True,
            )
        if trace:
            for line in tracemalloc.take_snapshot().compare_to(before, "traceback")[:8]:
                print(f"{line.size_diff / 1024:+.0f} KiB in {line.count_diff:+,} pieces")
                print("\n".join(line.traceback.format()[-10:]))


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "trace"]
    total_hours, rate = (*(float(word) for word in given), *(8.0, 2.0)[len(given) :])
    asyncio.run(main(total_hours, rate, "trace" in sys.argv))
