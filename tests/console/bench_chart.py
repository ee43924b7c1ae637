"""What a frame costs: `python tests/console/bench_chart.py` prints milliseconds and bytes per frame.

Two series of 600 points in a chart of 120 × 40 cells, as a terminal with true colour gets it. Not collected
by pytest: times depend on the machine. Times are of the processor, from new data to the terminal's bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from textual.app import App, ComposeResult

from embedctl.series import Series
from embedctl_console.widgets.chart import ChartSeries, TimeSeriesChart

FRAMES = 200
POINTS = 600
SPAN = 300.0
START = 1_772_625_600.0


class BenchApp(App[None]):
    CSS = "TimeSeriesChart { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.chart = TimeSeriesChart(unit="ms", title="Latency", span=SPAN, clock=lambda: self.now)

    def compose(self) -> ComposeResult:
        yield self.chart

    def feed(self, shift: float) -> None:
        self.now = START + shift
        at = self.now - SPAN + np.arange(POINTS) * (SPAN / POINTS)
        lines = []
        for key, level in (("native", 30.0), ("ollama", 60.0)):
            values = level + 20 * np.sin(at / 23 + level) + 4 * np.sin(at * 1.7)
            lines.append(ChartSeries(key, key, Series(key, at, values, values, values, 3.0)))
        self.chart.show(lines)


async def measure(name: str, step: Callable[[BenchApp, int], None]) -> None:
    """Let `step` change the chart and have Textual's compositor make the update."""
    app = BenchApp()
    async with app.run_test(size=(120, 40)) as pilot:
        app.feed(0)
        await pilot.pause()
        screen = app.screen
        seconds, size = [], []
        for frame in range(FRAMES):
            begin = time.thread_time()
            step(app, frame)
            screen._compositor.update_widgets({app.chart})
            update = screen._compositor.render_update(screen_stack=app._background_screens)
            text = update.render_segments(app.console) if update is not None else ""
            seconds.append(time.thread_time() - begin)
            size.append(len(text.encode()))
            await pilot.pause()
    print(
        f"{name:<34} {np.median(seconds) * 1e3:6.2f} ms (p95 {np.percentile(seconds, 95) * 1e3:.2f})"
        f"   {np.mean(size):8,.0f} bytes (max {max(size):,})"
    )


def all_new(app: BenchApp, frame: int) -> None:
    """Every column differs from the frame before."""
    app.feed(frame * SPAN / 3)


def live(app: BenchApp, frame: int) -> None:
    """Half a second passes, as at 2 Hz."""
    app.feed(frame * 0.5)


def cursor(app: BenchApp, frame: int) -> None:
    app.chart.move_cursor(app.now - SPAN * (0.1 + 0.8 * frame / FRAMES))


async def main() -> None:
    await measure("every column new", all_new)
    await measure("live at 2 Hz, 5 min shown", live)
    await measure("cursor moves one step", cursor)


if __name__ == "__main__":
    asyncio.run(main())
