"""What History costs over a month of recording: `python tests/console/bench_history.py [folder]`.

Fills a store as 30 days at 1 Hz leave it behind (the store's own benchmark does that), with ten events a
day, opens the screen over an engine that reads it, and prints per step: seconds until what was asked for is
drawn, of the wall clock and of the processor (all threads), without the pause that lets a turning wheel come
to rest.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from embedctl.records import Event
from embedctl.series import History
from embedctl.store import Store
from embedctl_console.screens import history_charts
from embedctl_console.screens.history import HistoryScreen
from tests.e2e.bench_store_history import NOW, RETENTION, fill
from tests.support.console import console, settle
from tests.support.fake_engine import FakeEngine

SIZE = (160, 50)
ROUNDS = 15


class StoredEngine(FakeEngine):
    """The scripted engine over a real store."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.now = float(NOW)
        self.store = store

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        return self.store.history(since, until, metrics, points)

    def recorded_span(self) -> tuple[float, float] | None:
        return self.store.recorded_span()

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        return self.store.events(since, until, kinds, limit)


async def measure(name: str, step: Callable[[int], Awaitable[None]]) -> None:
    wall, cpu = [], []
    for number in range(ROUNDS):
        begin, used = time.perf_counter(), time.process_time()
        await step(number)
        wall.append((time.perf_counter() - begin) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    print(
        f"{name:<44} wall median {np.median(wall):6.1f} ms (worst {max(wall):.0f})"
        f"   processor {np.median(cpu):6.1f} ms"
    )


async def main(store: Store) -> None:
    history_charts._SETTLE = 600.0  # it is read when a step says so
    app = console(StoredEngine(store))
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, HistoryScreen)
        month = 6

        async def drawn() -> None:
            screen._read()
            await app.workers.wait_for_complete(
                [worker for worker in app.workers if worker.group == "history-read"]
            )
            app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)

        async def opened(_: int) -> None:
            screen.action_choose_range(month)
            await drawn()

        async def zoomed_at_once(number: int) -> None:
            screen._main.action_zoom(1 if number % 2 else -1)
            app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)

        async def zoomed(number: int) -> None:
            screen._main.action_zoom(1 if number % 2 else -1)
            await drawn()

        await measure("30 days opened (read and drawn)", opened)
        await measure("a zoom step, of what is there", zoomed_at_once)
        await measure("a zoom step, read anew and drawn", zoomed)
        for name, chosen in (("15 minutes", 1), ("24 hours", 4), ("90 days", 7)):
            screen.action_choose_range(chosen)
            await drawn()
            await measure(f"a zoom step at {name}, read and drawn", zoomed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        opened_store = Store.open(Path(folder) / "history.db", retention=RETENTION, clock=lambda: float(NOW))
        fill(opened_store, 30)
        for number in range(300):
            kind = ("load", "switch", "run", "error")[number % 4]
            opened_store.add_event(Event(NOW - number * 8_640.0 - 100, kind, f"event {number}"))
        asyncio.run(main(opened_store))
        opened_store.close()
