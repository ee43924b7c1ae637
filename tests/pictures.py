"""Draw the README's pictures anew: the demo's journey without a terminal, screens saved as SVG.

    uv run python -m tests.pictures [FOLDER]

Takes about three minutes. Everything in the pictures is what the demo really did; only the machine is
simulated, and the pictures say so.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from embedctl.engine.engine import Engine
from embedctl.engine.opening import open_engine
from embedctl.lab.workloads import built_in
from embedctl.records import JobState
from embedctl_console.app import ConsoleApp

SIZE = (120, 38)
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "pictures"


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["EMBEDCTL_HOME"] = home
        asyncio.run(_journey(folder))


async def _journey(folder: Path) -> None:
    engine = open_engine(demo=True)
    app = ConsoleApp(lambda: engine, demo=True)
    async with app.run_test(size=SIZE) as pilot:

        def save(name: str) -> None:
            app.save_screenshot(str(folder / f"{name}.svg"))
            print(f"{name}.svg")  # what was drawn

        await _until(lambda: app.state is not None)
        await pilot.press("d")
        await _settled(pilot, 2)
        await pilot.press("enter")
        await _settled(pilot, 2.2)
        save("download")
        await _until(lambda: engine.model(online=False).complete)
        await pilot.press("1", "l")
        await _until(lambda: engine.status().backend("native").state.value == "ready")
        with _Traffic(engine):
            await _settled(pilot, 20)
            await pilot.press("s")
            await _settled(pilot, 2)
            save("switch")
            await pilot.press("enter")
            await _until(lambda: engine.status().active == "ollama")
            await _settled(pilot, 3)
            save("switched")
            await pilot.press("escape")
            await _settled(pilot, 15)
            job = engine.switch("native", keep_both=True)
            await asyncio.to_thread(job.wait, 120)
            await _settled(pilot, 15)
            save("dashboard")
        await pilot.press("0", "ctrl+r")
        await _until(lambda: "XQuAD" in _text_of(app) and "stops" not in _text_of(app))
        await _settled(pilot, 1)
        save("playground")
        await pilot.press("escape")
        await _run_once(engine)
        await pilot.press("3", "enter")
        await _settled(pilot, 2)
        save("run")
        await pilot.press("4", "p", "p")
        await _settled(pilot, 3)
        save("history")
        await pilot.press("7")
        await _until(lambda: "torch" in _text_of(app))
        await _settled(pilot, 1)
        save("doctor")
    await asyncio.to_thread(engine.close)


async def _run_once(engine: Engine) -> None:
    update = await asyncio.to_thread(engine.benchmark().wait, 240)
    assert update.state is JobState.DONE, update.failure


class _Traffic:
    """Questions to the active backend, a few a second, from one client."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        texts = built_in()
        number = 0
        while not self._stop.wait(0.2):
            number += 1
            self._engine.embed([texts.query(number)])


def _text_of(app: ConsoleApp) -> str:
    return app.export_screenshot()


async def _settled(pilot: Pilot[None], seconds: float) -> None:
    await asyncio.sleep(seconds)  # what the picture shows takes its time, as it would for a person
    await pilot.pause()


async def _until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the demo did not get there"
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    main()
