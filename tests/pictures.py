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
from pathlib import Path

from embedctl.engine.engine import Engine
from embedctl.engine.opening import open_engine
from embedctl.records import JobState
from embedctl_console.app import ConsoleApp
from tests.support.demo import Traffic, settled, until

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

        await until(lambda: app.state is not None)
        await pilot.press("d")
        await settled(pilot, 2)
        await pilot.press("enter")
        await settled(pilot, 2.2)
        save("download")
        await until(lambda: engine.model(online=False).complete)
        await pilot.press("1", "l")
        await until(lambda: engine.status().backend("native").state.value == "ready")
        with Traffic(engine):
            await settled(pilot, 20)
            await pilot.press("s")
            await settled(pilot, 2)
            save("switch")
            await pilot.press("enter")
            await until(lambda: engine.status().active == "ollama")
            await settled(pilot, 3)
            save("switched")
            await pilot.press("escape")
            await settled(pilot, 15)
            job = engine.switch("native", keep_both=True)
            await asyncio.to_thread(job.wait, 120)
            await settled(pilot, 15)
            save("dashboard")
        await pilot.press("0", "ctrl+r")
        await until(lambda: "XQuAD" in _text_of(app) and "stops" not in _text_of(app))
        await settled(pilot, 1)
        save("playground")
        await pilot.press("escape")
        await _run_once(engine)
        await pilot.press("3", "enter")
        await settled(pilot, 2)
        save("run")
        await pilot.press("4", "p", "p")
        await settled(pilot, 3)
        save("history")
        await pilot.press("7")
        await until(lambda: "torch" in _text_of(app))
        await settled(pilot, 1)
        save("doctor")
    await asyncio.to_thread(engine.close)


async def _run_once(engine: Engine) -> None:
    update = await asyncio.to_thread(engine.benchmark().wait, 240)
    assert update.state is JobState.DONE, update.failure


def _text_of(app: ConsoleApp) -> str:
    return app.export_screenshot()


if __name__ == "__main__":
    main()
