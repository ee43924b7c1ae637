"""The three charts of recorded time, which History and the replay share: how they are made and filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Final, TypeVar

from embedctl.metrics import Unit
from embedctl.series import History
from embedctl_console.screens.history_series import chart_lines
from embedctl_console.widgets.chart import ChartView, Mark

if TYPE_CHECKING:
    from embedctl_console.app import ConsoleApp

_CHARTS: Final[tuple[tuple[str, str, Unit, str], ...]] = (
    (
        "memory",
        "GPU memory",
        "bytes",
        "Nothing was recorded in this window. The console records while it is open.",
    ),
    ("pool", "Memory pool", "bytes", "Nothing recorded here: press {step}."),
    ("latency", "Latency", "ms", "No requests here. A loaded backend is probed every few seconds."),
)

Chart = TypeVar("Chart", bound=ChartView)


def make_charts(
    kind: type[Chart], charset: str, span: float, clock: Callable[[], float], tz: tzinfo | None, *, step: str
) -> tuple[Chart, ...]:
    """Memory, pool and latency, from the top; the lowest one has the times.

    Args:
        step: A key with what it does, for a window without recordings: `. for a longer range`.
    """
    return tuple(
        kind(
            unit=unit,
            title=title,
            charset=charset,
            span=span,
            time_labels=name == "latency",
            empty=empty.format(step=step),
            id=name,
            clock=clock,
            tz=tz,
        )
        for name, title, unit, empty in _CHARTS
    )


def fill_charts(
    charts: Sequence[ChartView],
    console: ConsoleApp,
    history: History,
    marks: Sequence[Mark],
    *,
    window: tuple[float, float],
    live: bool,
    cursor: float | None = None,
) -> None:
    """Show what was read, in one window: charts that each moved to the present would differ by a column.

    A `cursor` is put there; without one it stays where it is.
    """
    state, settings = console.state, console.engine.settings.engine
    gpu = state.status.machine.gpu if state is not None and state.status.machine is not None else None
    memory, pool, latency = charts
    lines = chart_lines(
        history,
        pool_apart=pool.display,
        unified=gpu is not None and gpu.unified is True,
        floor_gib=settings.memory_floor_gib,
    )
    memory.title, pool.title = lines.memory_title, lines.pool.title
    pool.ceiling, pool.thresholds = lines.pool.total, lines.pool.thresholds
    for chart, shown in ((memory, lines.memory), (pool, lines.pool.series), (latency, lines.latency)):
        chart.show(shown, marks, window=window, live=live, cursor=cursor)
