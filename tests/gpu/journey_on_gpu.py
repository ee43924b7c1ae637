"""The console on a real GPU without a terminal: load, embed, measure, look, unload; pictures and figures.

    EMBEDCTL_HOME=/tmp/e python -m tests.gpu.journey_on_gpu MODEL_FOLDER PICTURES_FOLDER

MODEL_FOLDER is a sentence-transformers folder, such as one of BGE-M3's shape. Ollama is not needed; its
backend is then shown as unavailable, as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import threading
import time
from pathlib import Path

from embedctl.engine.engine import Engine
from embedctl.engine.opening import open_engine
from embedctl.errors import EmbedctlError
from embedctl.format import format_bytes, format_ms, format_value
from embedctl.lab.workloads import built_in
from embedctl.metrics import METRICS
from embedctl.records import JobState, Run
from embedctl_console.app import ConsoleApp
from tests.support.boundary import across_the_boundary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("pictures", type=Path)
    arguments = parser.parse_args()
    os.environ["EMBEDCTL_MODEL__REPO"] = from_home(Path(arguments.model).resolve())
    asyncio.run(journey(arguments.pictures))


def from_home(folder: Path) -> str:
    """The folder as a user would write it: the pictures show it, and no machine's own paths."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


async def journey(pictures: Path) -> None:
    started = time.perf_counter()
    engine = open_engine()
    print(f"engine open after {time.perf_counter() - started:.2f} s")
    app = ConsoleApp(lambda: engine)
    async with app.run_test(size=(160, 50)) as pilot:
        await until(lambda: app.state is not None)
        before = await measured(engine, "before the load")
        await pilot.press("l")
        await until(lambda: engine.status().backend("native").state.value in ("ready", "failed"), 300)
        print("native:", engine.status().backend("native"))
        for event in engine.events(kinds=["load", "error"], limit=3):
            print("event:", event.title, dict(event.detail))
        print(await asyncio.to_thread(across_the_boundary, engine))
        traffic = Traffic(engine)
        await asyncio.sleep(25)  # let the charts have something to show
        await measured(engine, "under traffic")
        status = engine.status()
        seen, claimed = status.sample, status.backend("native").claimed_bytes  # one moment for both
        app.save_screenshot(str(pictures / "h200-dashboard.svg"))
        print(f"traffic: {traffic.stop()} requests")
        gpu = seen.get("native_gpu_memory") if seen else None
        if gpu and claimed:
            beyond = format_bytes(gpu - claimed)
            print(f"NVML {format_bytes(gpu)}, torch {format_bytes(claimed)}, beyond torch {beyond}")
        await bench(engine)
        await pilot.press("4", "comma")  # the last minute: all of it lies there
        await asyncio.sleep(3)
        app.save_screenshot(str(pictures / "h200-history.svg"))
        for finding in await asyncio.to_thread(engine.doctor):
            print(
                f"doctor: {finding.severity.value:<8}{finding.topic:<8}{finding.title} — {finding.detail}"[
                    :230
                ]
            )
        began = time.perf_counter()
        job = engine.unload("native")
        await asyncio.to_thread(job.wait, 60)
        await until(lambda: not held(engine), 30)
        print(f"unloaded and seen gone after {time.perf_counter() - began:.2f} s")
        after = await measured(engine, "after the unload")
        print(f"GPU memory used before {format_bytes(before)}, after {format_bytes(after)}")
    await asyncio.to_thread(engine.close)


class Traffic:
    """Two clients: single questions, and batches of 32 passages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._answered = 0
        self._threads = [threading.Thread(target=self._ask, args=(size,)) for size in (1, 32)]
        for thread in self._threads:
            thread.start()

    def _ask(self, size: int) -> None:
        texts = built_in()
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            try:
                self._engine.embed([texts.query(number)] if size == 1 else texts.batch(size, number))
            except EmbedctlError as error:
                print("failed:", error)
                return
            self._answered += 1

    def stop(self) -> int:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self._answered


async def bench(engine: Engine) -> None:
    job = engine.benchmark(backends=["native"])
    update = await asyncio.to_thread(job.wait, 200)
    if update.state is not JobState.DONE or not isinstance(update.result, Run):
        print("benchmark:", update.state, update.failure)
        return
    for row in update.result.measurements:
        print(
            f"bench: {row.shape:<13} p50 {format_ms(row.p50_ms):>9}  p95 {format_ms(row.p95_ms):>9}  "
            f"{row.texts_per_s or 0:8.0f} texts/s  {row.tokens_per_s or 0:9.0f} tokens/s  "
            f"peak {format_bytes(row.peak_bytes)} ({row.peak_source}), errors {row.errors}"
        )


def held(engine: Engine) -> float:
    sample = engine.status().sample
    return (sample.get("native_gpu_memory") or 0.0) if sample else 0.0


async def measured(engine: Engine, when: str) -> float | None:
    await asyncio.sleep(1.2)  # two samples
    sample = engine.status().sample
    assert sample is not None
    figures = {key: format_value(value, METRICS[key].unit) for key, value in sample.values.items()}
    print(f"{when}: {figures}")
    absent = {key: note.absence for key, note in sample.provenance.items() if note.absence}
    print(f"{when}, absent: {absent}")
    return sample.get("gpu_memory_used")


async def until(condition: object, seconds: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    main()
