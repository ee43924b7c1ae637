"""Runs the console over the scripted engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from embedctl_console.app import ConsoleApp
from tests.support.fake_engine import FakeEngine

if TYPE_CHECKING:
    from textual.pilot import Pilot


def console(engine: FakeEngine) -> ConsoleApp:
    """An app over `engine`, by its clock, that delivers news at once."""
    return ConsoleApp(lambda: engine, demo=engine.demo, clock=engine.clock, flush_every=0.0)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until everything that was set going has come to rest."""
    for _ in range(50):
        await pilot.pause()
        waiting = [worker for worker in pilot.app.workers if not worker.is_finished]
        if not waiting:
            await pilot.pause()
            if not [worker for worker in pilot.app.workers if not worker.is_finished]:
                return
        else:
            await pilot.app.workers.wait_for_complete(waiting)
    raise AssertionError(f"still at work: {list(pilot.app.workers)}")


@asynccontextmanager
async def running(engine: FakeEngine, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Pilot[None]]:
    """The console with its Dashboard shown and everything loaded."""
    app = console(engine)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys one after the other, waiting after each until everything has come to rest."""
    for key in keys:
        await pilot.press(key)
        await settle(pilot)


def screen_text(pilot: Pilot[None]) -> str:
    """What stands on the screen, line by line, without colours."""
    width, height = pilot.app.size
    lines = pilot.app.screen._compositor.render_strips()
    return "\n".join(line.text.rstrip()[:width] for line in lines[:height])
