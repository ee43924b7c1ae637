"""What one frame of a chart depends on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final, Literal

from embedctl.metrics import Unit
from embedctl.series import Series
from embedctl_console.widgets.chart.marks import Mark
from embedctl_console.widgets.chart.viewport import Viewport

GUTTER: Final = 10
"""Cells left of the plot, the same for every chart, so that charts above each other line up in time."""

Texture = Literal["solid", "dense", "sparse"]
"""How much of an area is inked: what is in use solid, what could be given back dense, what is free sparse."""


@dataclass(frozen=True)
class ChartSeries:
    """One line (or, stacked, one area) of a chart."""

    key: str
    label: str
    series: Series
    color: str | None = None
    """A colour, or a theme variable such as `$series-native`; None: the next series colour."""
    visible: bool = True
    """False: only its value is in the legend."""
    stacked: bool = False
    """Drawn as an area on top of the stacked series before it, by the mean per column; where its greatest
    value is a cell or more above that, a stem reaches up to it."""
    texture: Texture = "solid"
    """Of an area."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value that means something: a line across the plot, with its label at the right."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time that the user has marked; `until` is None while its end is still open."""

    name: str
    since: float
    until: float | None


@dataclass(frozen=True)
class Scene:
    """All that a frame depends on besides its size."""

    unit: Unit
    series: Sequence[ChartSeries]
    marks: Sequence[Mark]
    viewport: Viewport
    title: str = ""
    state: str = ""
    """`LIVE`, `PAUSED`, what the chart's owner says, or empty; shown at the upper right."""
    cursor: float | None = None
    charset: str = "braille"
    tz: tzinfo | None = None
    log: bool = False
    ceiling: float | None = None
    time_labels: bool = True
    empty: str = "No readings in this window."
    thresholds: Sequence[Threshold] = ()
    spans: Sequence[Span] = ()
    chosen: str | None = None
    """Key of the series that the legend's own cursor is on."""


@dataclass(frozen=True, slots=True)
class PlotArea:
    """The cells of a frame that stand for time and value."""

    x: int
    y: int
    width: int
    height: int

    def time_at(self, x: float, viewport: Viewport) -> float:
        """The instant at the centre of column `x` of the frame."""
        return viewport.since + viewport.span * (x - self.x + 0.5) / self.width

    def column(self, at: float, viewport: Viewport) -> int | None:
        """The column of the frame that holds `at`; None outside the window."""
        if not viewport.holds(at):
            return None
        return self.x + min(self.width - 1, int(viewport.share(at) * self.width))
