"""What a frame costs: `python tests/console/bench_chart.py` prints milliseconds and bytes per frame.

Two series of 600 points in a chart of 120 × 40 cells, as a terminal with true colour gets it. Not collected
by pytest: times depend on the machine. Times are of the processor, from new data to the terminal's bytes.
Then four charts on 160 × 50, as a live screen has them: the pool's layers, lines, and events with labels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import cache

import numpy as np
from textual.app import App, ComposeResult

from embedctl.series import Floats, Series
from embedctl_console.widgets.chart import ChartSeries, Mark, TimeSeriesChart
from embedctl_console.widgets.chart.pool import pool_chart

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

    @property
    def charts(self) -> set[TimeSeriesChart]:
        return set(self.query(TimeSeriesChart))

    def feed(self, shift: float) -> None:
        self.now = START + shift
        at = self.now - SPAN + np.arange(POINTS) * (SPAN / POINTS)
        lines = []
        for key, level in (("native", 30.0), ("ollama", 60.0)):
            values = level + 20 * np.sin(at / 23 + level) + 4 * np.sin(at * 1.7)
            lines.append(ChartSeries(key, key, Series(key, at, values, values, values, 3.0)))
        self.chart.show(lines)


_AT = np.arange(START - 900, START + FRAMES, 0.5)


@cache
def _wave(level: float, swing: float) -> Floats:
    values: Floats = level + swing * (np.sin(_AT / 23 + level) + 0.3 * np.sin(_AT * 1.7))
    return values


class FourCharts(BenchApp):
    """The pool, GPU memory, latency and power, two by two."""

    CSS = "Screen { layout: grid; grid-size: 2 2; }"

    def compose(self) -> ComposeResult:
        for unit in ("bytes", "bytes", "ms", "watt"):
            yield TimeSeriesChart(unit=unit, title=unit, span=SPAN, clock=lambda: self.now)  # type: ignore[arg-type]

    def feed(self, shift: float) -> None:
        self.now = START + shift
        seen = slice(0, int(np.searchsorted(_AT, self.now)))

        def wave(key: str, level: float, swing: float) -> Series:
            values = _wave(level, swing)[seen]
            return Series(key, _AT[seen], values, values, values, 3.0)

        gib = 2.0**30
        pool = pool_chart(
            lambda key: {
                "host_memory_total": wave(key, 121.6 * gib, 0.0),
                "host_memory_available": wave(key, 88 * gib, gib),
                "host_memory_free": wave(key, 41 * gib, gib),
                "host_memory_reclaimable": wave(key, 47 * gib, 0.1 * gib),
            }.get(key, wave(key, 4 * gib, 0.2 * gib)),
            unified=True,
        )
        lines = [
            [ChartSeries(key, key, wave(key, level, level / 10)) for key, level in levels.items()]
            for levels in (
                {"native": 4 * gib, "ollama": 3 * gib, "used": 9 * gib},
                {"native p50": 24.0, "ollama p50": 96.0, "native p95": 38.0, "ollama p95": 131.0},
                {"power": 40.0},
            )
        ]
        marks = [Mark(START - back, "switch", "ollama → native in 9.8 s") for back in (20, 110, 200)]
        for chart, series in zip(self.query(TimeSeriesChart), (pool.series, *lines), strict=True):
            if series is pool.series:
                chart.ceiling, chart.thresholds = pool.total, pool.thresholds
            chart.show(series, marks)


async def measure(
    name: str,
    step: Callable[[BenchApp, int], None],
    make: Callable[[], BenchApp] = BenchApp,
    size: tuple[int, int] = (120, 40),
) -> None:
    """Let `step` change the chart and have Textual's compositor make the update."""
    app = make()
    async with app.run_test(size=size) as pilot:
        app.feed(0)
        await pilot.pause()
        screen = app.screen
        seconds, size = [], []
        for frame in range(FRAMES):
            begin = time.thread_time()
            step(app, frame)
            screen._compositor.update_widgets(app.charts)  # type: ignore[arg-type]
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
    await measure("four charts at 160 x 50, live at 2 Hz", live, FourCharts, (160, 50))


if __name__ == "__main__":
    asyncio.run(main())
