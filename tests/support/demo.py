"""Using the demo as a person would: waiting for what it shows, asking its active backend meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

from textual.pilot import Pilot

from embedctl.engine.engine import Engine
from embedctl.lab.workloads import built_in


class Traffic:
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


async def settled(pilot: Pilot[None], seconds: float) -> None:
    await asyncio.sleep(seconds)  # what the picture shows takes its time, as it would for a person
    await pilot.pause()


async def until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the demo did not get there"
        await asyncio.sleep(0.1)
