"""Lines and areas: what each series covers in each dot column, and its picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from embedctl.series import Columns, Floats, columns
from embedctl_console.widgets.chart.axis import Scale
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.legend import reading
from embedctl_console.widgets.chart.palette import SIGNS
from embedctl_console.widgets.chart.raster import (
    CHARSETS,
    NOBODY,
    Charset,
    Dots,
    dot_rows,
    fill,
    merge,
    textured,
    trace,
)
from embedctl_console.widgets.chart.scene import PlotArea, Scene, Texture

_LEAST_GRID: Final = 6
"""Cells."""


@dataclass(frozen=True, slots=True)
class Path:
    """What one visible series covers in each dot column."""

    index: int
    low: Floats
    high: Floats
    area: bool
    peak: Floats
    """Where the greatest value of the column lies; for a line that is `high`."""
    texture: Texture = "solid"


def paths_of(scene: Scene, count: int) -> list[Path]:
    """The visible series in `count` dot columns, areas piled upon each other."""
    paths = []
    level = np.zeros(count)
    for index, chart in enumerate(scene.series):
        if not chart.visible:
            continue
        passed: Columns = columns(chart.series, scene.viewport.since, scene.viewport.until, count)
        if chart.stacked:
            upper = level + passed.mean
            paths.append(Path(index, level, upper, True, level + passed.high, chart.texture))
            level = np.where(np.isnan(upper), level, upper)
        else:
            paths.append(Path(index, passed.low, passed.high, False, passed.high))
    return paths


def bounds_of(paths: Sequence[Path]) -> tuple[float, float] | None:
    """The least and the greatest value drawn; None when there is none.

    The stem of a free or reclaimable area's peak is none: what was used less at times is not more in all.
    """
    tops = [path.peak if path.texture == "solid" else path.high for path in paths]
    there = [~np.isnan(top) for top in tops]
    lows = [path.low[some].min() for path, some in zip(paths, there, strict=True) if some.any()]
    highs = [top[some].max() for top, some in zip(tops, there, strict=True) if some.any()]
    return (float(min(lows)), float(max(highs))) if lows else None


def draw_paths(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale, paths: Sequence[Path]) -> None:
    """All paths in one picture; what lies behind shows where no dot is."""
    charset = CHARSETS[scene.charset]
    rows = area.height * charset.down
    layers: list[Dots] = [
        textured(fill(path.low, path.high, scale.bottom, scale.top, rows), path.texture)
        if path.area
        else trace(path.low, path.high, scale.bottom, scale.top, rows, log=scale.log)
        for path in paths
    ]
    areas = any(path.area for path in paths)
    if areas:  # a line over an area is seen where its dots are the only ones of the cell
        lines = [layer for path, layer in zip(paths, layers, strict=True) if not path.area]
        covered = _cells(np.logical_or.reduce(lines), charset) if lines else None
        if covered is not None:
            layers = [
                layer & ~covered if path.area else layer for path, layer in zip(paths, layers, strict=True)
            ]
    signs = SIGNS[scene.charset]
    own_signs = "".join(signs[path.index % len(signs)] for path in paths)
    picture = merge(layers, charset, own_signs, turns=not areas)
    roles = np.array([Role.SERIES + path.index for path in paths], dtype=np.int16)[picture.owners]
    inked = picture.owners != NOBODY
    plot = np.s_[area.y : area.y + area.height, area.x : area.x + area.width]
    canvas.glyphs[plot] = np.where(inked, picture.glyphs, canvas.glyphs[plot])
    canvas.roles[plot] = np.where(inked, roles, canvas.roles[plot])
    for path in reversed(paths):  # the lowest area's stems on top
        if path.area and path.texture == "solid":
            _draw_stems(canvas, scene, area, scale, path)
    for y in range(area.y, area.y + area.height):
        _clear_short_grid(canvas, area, y)


def _cells(dots: Dots, charset: Charset) -> Dots:
    """All dots of the cells in which at least one is set."""
    height, width = dots.shape[0] // charset.down, dots.shape[1] // charset.across
    cells = dots.reshape(height, charset.down, width, charset.across).any(axis=(1, 3))
    return cells.repeat(charset.down, axis=0).repeat(charset.across, axis=1)


def _draw_stems(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale, path: Path) -> None:
    """An upright stroke from an area's mean to its peak, where that stands out: no spike is averaged away."""
    charset = CHARSETS[scene.charset]
    rows = area.height * charset.down
    top = dot_rows(path.peak, scale.bottom, scale.top, rows) // charset.down
    mean = dot_rows(path.high, scale.bottom, scale.top, rows) // charset.down
    tall = ~np.isnan(path.peak) & ~np.isnan(path.high) & (top < mean)
    for column in np.flatnonzero(tall).tolist():
        x, y, height = area.x + column // charset.across, int(top[column]), int(mean[column] - top[column])
        glyph = _stem(charset, column % charset.across, SIGNS[scene.charset][path.index % 7])
        canvas.fill(x, area.y + y, 1, height, glyph, Role.SERIES + path.index)


def _stem(charset: Charset, side: int, sign: str) -> str:
    """A cell with the dots of one dot column."""
    if charset.across * charset.down == 1:
        return sign
    return charset.glyphs[sum(row[side] for row in charset.weights)]


def _clear_short_grid(canvas: Canvas, area: PlotArea, y: int) -> None:
    """Take away the grid where lines leave little of it: clutter, and two changes of colour each."""
    line = slice(area.x, area.x + area.width)
    grid = canvas.roles[y, line] == Role.GRID
    if not grid.any():
        return
    starts = np.flatnonzero(np.diff(grid, prepend=False, append=False))
    for begin, end in zip(starts[::2].tolist(), starts[1::2].tolist(), strict=True):
        if end - begin < _LEAST_GRID:
            canvas.glyphs[y, area.x + begin : area.x + end] = ord(" ")
            canvas.roles[y, area.x + begin : area.x + end] = Role.TEXT


def draw_signs(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale) -> None:
    """Each line's sign at the cursor or, without one, at its newest entry: colour is not the only sign."""
    signs = SIGNS[scene.charset]
    for index, chart in reversed([*enumerate(scene.series)]):  # the first one is on top
        if not chart.visible or chart.stacked:
            continue
        found = reading(chart.series, scene, area.width)
        if found is None:
            continue
        x = area.column(found.at if scene.cursor is None else scene.cursor, scene.viewport)
        if x is not None:
            y = cell_row(found.mean, scene, area, scale)
            canvas.put(x, y, signs[index % len(signs)], Role.SERIES + index)


def cell_row(value: float, scene: Scene, area: PlotArea, scale: Scale) -> int:
    """The line of the frame in which a series draws `value`."""
    down = CHARSETS[scene.charset].down
    row = dot_rows(np.array([value]), scale.bottom, scale.top, area.height * down, log=scale.log)
    return area.y + int(row[0]) // down
