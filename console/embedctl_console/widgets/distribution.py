"""How readings are spread: a histogram, and the share that is at most so much. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from textual.content import Content

from embedctl.series import Floats
from embedctl_console.widgets.chart.raster import CHARSETS, NOBODY, merge, trace

_LEVELS: Final = {"braille": " ▁▂▃▄▅▆▇█", "block": " ▁▂▃▄▅▆▇█", "ascii": " .:-=+*#@"}
_GUTTER: Final = 7
"""Cells for the labels of the value axis."""
_WIDE_RANGE: Final = 30.0
"""From this ratio of the greatest to the least reading on, shares are drawn over a logarithmic axis."""

Label = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Readings:
    """Some readings of one thing."""

    name: str
    style: str
    values: Floats
    """Finite, in any order."""


def histogram(
    readings: Readings,
    width: int,
    height: int,
    label: Label,
    *,
    charset: str = "braille",
    ends: tuple[float, float] | None = None,
) -> Content:
    """Bars of how many readings lie where, `height` lines and an axis; a bin with any shows at least a mark.

    Args:
        label: Writes a reading below the axis.
        ends: The axis's ends; None: the least and the greatest reading.
    """
    values = readings.values
    if not len(values):
        return Content.assemble(("no readings", "$text-muted"))
    low, high = _widened(ends or (float(values.min()), float(values.max())))
    room = max(8, width - _GUTTER)
    # As many bins as serve the readings' own spread, however long the axis is.
    spread = (high - low) / max(float(np.ptp(values)), (high - low) / room)
    each = max(1, room // max(6, math.ceil(math.sqrt(len(values)) * spread)))
    bins = room // each
    counts, _ = np.histogram(values, bins, (low, high))
    glyphs = _LEVELS[charset]
    steps = len(glyphs) - 1
    levels = np.rint(counts / counts.max() * height * steps).astype(int)
    levels[(counts > 0) & (levels == 0)] = 1
    rows = []
    for row in range(height):
        floor = (height - 1 - row) * steps
        line = "".join(glyphs[max(0, min(steps, level - floor))] * each for level in levels.tolist())
        mark = f"{counts.max():,}" if row == 0 else ""
        rows.append(
            Content.assemble(
                (f"{mark:>{_GUTTER - 2}} ", "$text-muted"), ("│", "$border"), (line, readings.style)
            )
        )
    return Content("\n").join([*rows, *_axis(label, low, high, each * bins)])


def shares(
    lines: Sequence[Readings], width: int, height: int, label: Label, *, charset: str = "braille"
) -> Content:
    """Empirical distribution functions over one axis: the share of the readings that is at most so much."""
    lines = [line for line in lines if len(line.values)]
    if not lines:
        return Content.assemble(("no readings", "$text-muted"))
    low = min(float(line.values.min()) for line in lines)
    high = max(float(line.values.max()) for line in lines)
    log = low > 0 and high / low > _WIDE_RANGE
    low, high = _widened((low, high))
    cells = max(8, width - _GUTTER)
    chosen = CHARSETS[charset]
    edges = _between(low, high, cells * chosen.across + 1, log=log)
    layers = []
    for line in lines:
        reached = np.searchsorted(np.sort(line.values), edges, side="right") / len(line.values)
        before, after = reached[:-1], reached[1:]
        there = (after > 0) & (before < 1)
        layers.append(
            trace(
                np.where(there, before, np.nan),
                np.where(there, after, np.nan),
                0.0,
                1.0,
                height * chosen.down,
            )
        )
    picture = merge(layers, chosen, "*+")
    marks = {
        0: "100%",
        round(0.05 * (height - 1)) or 1: "95%",
        round(0.5 * (height - 1)): "50%",
        height - 1: "0%",
    }
    rows = []
    for y in range(height):
        parts: list[Content | tuple[str, str]] = [
            (f"{marks.get(y, ''):>{_GUTTER - 2}} ", "$text-muted"),
            ("│", "$border"),
        ]
        for code, owner in zip(picture.glyphs[y].tolist(), picture.owners[y].tolist(), strict=True):
            parts.append((chr(code), lines[owner].style if owner != NOBODY else ""))
        rows.append(Content.assemble(*parts))
    return Content("\n").join([*rows, *_axis(label, low, high, cells, log=log)])


def legend(lines: Sequence[Readings]) -> Content:
    return Content("   ").join([Content.assemble(("■ ", line.style), line.name) for line in lines])


def fine_label(low: float, high: float, *, most: int = 8) -> Label:
    """Writes plain numbers with as many decimals as tell readings between `low` and `high` apart."""
    span = high - low
    decimals = min(most, max(2, math.ceil(-math.log10(span)) + 1)) if span > 0 else most
    return lambda value: f"{value:.{decimals}f}"


def _axis(label: Label, low: float, high: float, cells: int, *, log: bool = False) -> list[Content]:
    middle = float(_between(low, high, 3, log=log)[1])
    begin, centre, end = label(low), label(middle), label(high)
    rule = Content.assemble((" " * (_GUTTER - 1) + "└" + "─" * cells, "$border"))
    line = begin.ljust(cells)
    at = max(len(begin) + 1, (cells - len(centre)) // 2)
    if at + len(centre) + 1 + len(end) <= cells:
        line = line[:at] + centre + line[at + len(centre) :]
    line = line[: cells - len(end)] + end
    return [rule, Content.assemble((" " * _GUTTER + line, "$text-muted"))]


def _between(low: float, high: float, count: int, *, log: bool) -> Floats:
    return np.geomspace(low, high, count) if log else np.linspace(low, high, count)


def _widened(ends: tuple[float, float]) -> tuple[float, float]:
    """An axis needs a length, also where all readings are the same."""
    low, high = ends
    room = max(abs(low), 1e-12) * 1e-6
    return (low, high) if high - low > room else (low - room, high + room)
