"""Puts a chart together: title, legend with values, axes, lines, marks and cursor on one canvas. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from textwrap import wrap
from typing import Final

import numpy as np

from embedctl.format import ABSENT, format_value, local_time
from embedctl.metrics import Unit
from embedctl.series import Columns, Floats, Reading, Series, columns, extent, reading_at
from embedctl_console.widgets.chart.axis import Scale, time_ticks, value_scale
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.marks import Mark, nearest_mark
from embedctl_console.widgets.chart.palette import SIGNS
from embedctl_console.widgets.chart.raster import CHARSETS, NOBODY, Dots, dot_rows, fill, merge, trace
from embedctl_console.widgets.chart.viewport import Viewport

GUTTER: Final = 10
"""Cells left of the plot, the same for every chart, so that charts above each other line up in time."""
_LEAST_GRID: Final = 6
"""Cells."""
_LEAST_WIDTH: Final = GUTTER + 8
_LEAST_HEIGHT: Final = 5

_LINES: Final = {"braille": ("│", "─", "└", "┤", "┴", "┈", "╎"), "ascii": ("|", "-", "+", "+", "+", ".", ":")}


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
    """Drawn as an area on top of the stacked series before it, by the mean per column."""


@dataclass(frozen=True)
class Scene:
    """All that a frame depends on besides its size."""

    unit: Unit
    series: Sequence[ChartSeries]
    marks: Sequence[Mark]
    viewport: Viewport
    title: str = ""
    state: str = ""
    """`LIVE`, `PAUSED` or empty; shown at the upper right."""
    cursor: float | None = None
    charset: str = "braille"
    tz: tzinfo | None = None
    log: bool = False
    ceiling: float | None = None
    time_labels: bool = True
    empty: str = "No readings in this window."


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


def plot_area(scene: Scene, width: int, height: int) -> PlotArea | None:
    """Where the plot lies in a frame of this size; None where there is no room for one."""
    if width < _LEAST_WIDTH or height < _LEAST_HEIGHT:
        return None
    top = 1 + len(_legend_lines(_legend(scene, width, spread=False), width))
    bottom = 2 if scene.time_labels else 1
    rows = height - top - bottom
    return PlotArea(GUTTER, top, width - GUTTER, rows) if rows >= 2 else None


def draw(scene: Scene, width: int, height: int) -> Canvas:
    """One frame of `height` lines of `width` cells."""
    canvas = Canvas(width, height)
    area = plot_area(scene, width, height)
    if area is None:
        canvas.put(0, 0, f"{scene.title}: too small to draw"[:width], Role.FAINT)
        return canvas
    _draw_header(canvas, scene, area)
    paths = _paths(scene, area.width * CHARSETS[scene.charset].across)
    bounds = _bounds(paths)
    if bounds is None:
        _draw_time_axis(canvas, scene, area)
        _draw_empty(canvas, scene, area)
        return canvas
    scale = value_scale(*bounds, scene.unit, area.height, log=scene.log, ceiling=scene.ceiling)
    _draw_value_axis(canvas, scene, area, scale)
    _draw_time_axis(canvas, scene, area)
    _draw_verticals(canvas, scene, area)
    _draw_paths(canvas, scene, area, scale, paths)
    _draw_signs(canvas, scene, area, scale)
    return canvas


# Title and legend ---------------------------------------------------------------------------------------


def _draw_header(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    canvas.put(0, 0, scene.title, Role.TITLE)
    right = canvas.width
    if scene.state:
        sign = {"LIVE": "●", "PAUSED": "‖"}.get(scene.state, "")
        badge = scene.state if scene.charset == "ascii" else f"{sign} {scene.state}"
        right -= len(badge)
        canvas.put(right, 0, badge, Role.LIVE if scene.state == "LIVE" else Role.PAUSED)
        right -= 2
    if scene.cursor is not None:
        moment = local_time(scene.cursor, scene.tz).strftime("%b %d %H:%M:%S")
        mark = nearest_mark(scene.marks, scene.cursor, 2 * scene.viewport.span / area.width)
        left = len(scene.title) + 2
        note = f"{moment}  {mark.letter} {mark.label}" if mark else moment
        room = right - left
        if len(note) > room:
            note = note[: max(0, room - 1)] + ("…" if scene.charset != "ascii" else "~")
        canvas.put(left, 0, note[:room], Role.TEXT)
        canvas.put(left, 0, moment[:room], Role.CURSOR)
    lines = _legend_lines(_legend(scene, canvas.width, spread=True), canvas.width)
    if len(lines) > area.y - 1:
        lines = _legend_lines(_legend(scene, canvas.width, spread=False), canvas.width)
    for y, line in enumerate(lines[: area.y - 1], 1):
        x = 0
        for index, sign, text in line:
            canvas.put(x, y, sign, Role.SERIES + index)
            canvas.put(x + 2, y, text, Role.TEXT if scene.series[index].visible else Role.FAINT)
            x += 2 + len(text) + 2


_VALUE_WIDTH: Final = 8

LegendEntry = tuple[int, str, str]
"""Index of the series, its sign, its label with the value."""


def _legend(scene: Scene, width: int, *, spread: bool) -> list[LegendEntry]:
    """Every series with its value at the cursor, or its newest one without a cursor."""
    signs = SIGNS[scene.charset]
    entries = []
    for index, chart in enumerate(scene.series):
        value = _value_text(chart.series, scene, width - GUTTER, spread=spread)
        sign = signs[index % len(signs)] if chart.visible else " "
        # Values have one width, so that nothing moves while they change.
        entries.append((index, sign, f"{chart.label} {value:<{_VALUE_WIDTH}}"))
    return entries


def _reading(series: Series, scene: Scene, columns: int) -> Reading | None:
    """The entry that the read-out is about: the one at the cursor or, without a cursor, the newest shown."""
    if scene.cursor is not None:
        return reading_at(series, scene.cursor, max(scene.viewport.span / columns, series.gap) / 2)
    newest = int(np.searchsorted(series.at, scene.viewport.until)) - 1
    if newest < 0 or series.at[newest] < scene.viewport.since:
        return None
    return reading_at(series, float(series.at[newest]), 0.0)


def _value_text(series: Series, scene: Scene, columns: int, *, spread: bool) -> str:
    """The entry's value and, where the cursor's column holds others too, their range."""
    reading = _reading(series, scene, columns)
    if reading is None:
        return ABSENT
    text = format_value(reading.mean, scene.unit)
    if scene.cursor is None or not spread:
        return text
    reach = scene.viewport.span / columns / 2
    ends = extent(series, scene.cursor - reach, scene.cursor + reach) or (reading.low, reading.high)
    low, high = (format_value(end, scene.unit) for end in ends)
    return text if low == high else f"{text} ({low} – {high})"


def _legend_lines(entries: Sequence[LegendEntry], width: int) -> list[list[LegendEntry]]:
    lines: list[list[LegendEntry]] = [[]]
    x = 0
    for entry in entries:
        length = 2 + len(entry[2])
        if x and x + length > width:
            lines.append([])
            x = 0
        lines[-1].append(entry)
        x += length + 2
    return lines


# Axes ---------------------------------------------------------------------------------------------------


def _draw_value_axis(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale) -> None:
    side, _, _, tick, _, grid, _ = _lines(scene)
    canvas.fill(area.x - 1, area.y, 1, area.height, side, Role.AXIS)
    for value, label in zip(scale.ticks, scale.labels, strict=True):
        y = _cell_row(value, scene, area, scale)
        canvas.put(max(0, area.x - 2 - len(label)), y, label, Role.AXIS)
        canvas.put(area.x - 1, y, tick, Role.AXIS)
        canvas.fill(area.x, y, area.width, 1, grid, Role.GRID)


def _cell_row(value: float, scene: Scene, area: PlotArea, scale: Scale) -> int:
    """The line of the frame in which a series draws `value`."""
    down = CHARSETS[scene.charset].down
    row = dot_rows(np.array([value]), scale.bottom, scale.top, area.height * down, log=scale.log)
    return area.y + int(row[0]) // down


def _draw_time_axis(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    _, base, corner, _, tick, _, _ = _lines(scene)
    y = area.y + area.height
    canvas.put(area.x - 1, y, corner + base * area.width, Role.AXIS)
    ticks = time_ticks(scene.viewport.since, scene.viewport.until, scene.tz, max(2, area.width // 12))
    free = area.x
    for moment in ticks:
        x = area.column(moment.at, scene.viewport)
        if x is None:
            continue
        canvas.put(x, y, tick, Role.AXIS)
        begin = min(max(x - len(moment.label) // 2, area.x), canvas.width - len(moment.label))
        if scene.time_labels and begin >= free:
            canvas.put(begin, y + 1, moment.label, Role.AXIS)
            free = begin + len(moment.label) + 2
    if scene.time_labels:
        canvas.put(0, y + 1, local_time(scene.viewport.since, scene.tz).strftime("%b %d"), Role.AXIS)
    heaviest: dict[int, Mark] = {}
    for mark in scene.marks:
        x = area.column(mark.at, scene.viewport)
        if x is not None and (x not in heaviest or mark.weight >= heaviest[x].weight):
            heaviest[x] = mark
    for x, mark in heaviest.items():
        canvas.put(x, y, mark.letter, Role.ALARM if mark.kind == "error" else Role.MARK)


def _draw_verticals(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    side, _, _, _, _, _, dashed = _lines(scene)
    stems = [(mark.at, dashed, Role.ALARM if mark.kind == "error" else Role.MARK) for mark in scene.marks]
    if scene.cursor is not None:
        stems.append((scene.cursor, side, Role.CURSOR))
    for at, line, role in stems:
        x = area.column(at, scene.viewport)
        if x is not None:
            canvas.fill(x, area.y, 1, area.height, line, role)


def _draw_empty(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    lines = wrap(scene.empty, area.width - 2)[: area.height]
    for y, line in enumerate(lines, area.y + (area.height - len(lines)) // 2):
        canvas.put(area.x + (area.width - len(line)) // 2, y, line, Role.FAINT)


def _lines(scene: Scene) -> tuple[str, ...]:
    return _LINES["ascii" if scene.charset == "ascii" else "braille"]


# Lines and areas ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Path:
    """What one visible series covers in each dot column."""

    index: int
    low: Floats
    high: Floats
    area: bool


def _paths(scene: Scene, count: int) -> list[_Path]:
    paths = []
    level = np.zeros(count)
    for index, chart in enumerate(scene.series):
        if not chart.visible:
            continue
        passed: Columns = columns(chart.series, scene.viewport.since, scene.viewport.until, count)
        if chart.stacked:
            upper = level + passed.mean
            paths.append(_Path(index, level, upper, area=True))
            level = np.where(np.isnan(upper), level, upper)
        else:
            paths.append(_Path(index, passed.low, passed.high, area=False))
    return paths


def _bounds(paths: Sequence[_Path]) -> tuple[float, float] | None:
    """The least and the greatest value drawn; None when there is none."""
    there = [~np.isnan(path.high) for path in paths]
    lows = [path.low[there].min() for path, there in zip(paths, there, strict=True) if there.any()]
    highs = [path.high[there].max() for path, there in zip(paths, there, strict=True) if there.any()]
    return (float(min(lows)), float(max(highs))) if lows else None


def _draw_paths(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale, paths: Sequence[_Path]) -> None:
    charset = CHARSETS[scene.charset]
    rows = area.height * charset.down
    layers: list[Dots] = [
        fill(path.low, path.high, scale.bottom, scale.top, rows)
        if path.area
        else trace(path.low, path.high, scale.bottom, scale.top, rows, log=scale.log)
        for path in paths
    ]
    signs = SIGNS[scene.charset]
    own_signs = "".join(signs[path.index % len(signs)] for path in paths)
    picture = merge(layers, charset, own_signs, turns=not any(path.area for path in paths))
    roles = np.array([Role.SERIES + path.index for path in paths], dtype=np.int16)[picture.owners]
    inked = picture.owners != NOBODY
    plot = np.s_[area.y : area.y + area.height, area.x : area.x + area.width]
    canvas.glyphs[plot] = np.where(inked, picture.glyphs, canvas.glyphs[plot])
    canvas.roles[plot] = np.where(inked, roles, canvas.roles[plot])
    for y in range(area.y, area.y + area.height):
        _clear_short_grid(canvas, area, y)


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


def _draw_signs(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale) -> None:
    """Each line's sign at the cursor or, without one, at its newest entry: colour is not the only sign."""
    signs = SIGNS[scene.charset]
    for index, chart in reversed([*enumerate(scene.series)]):  # the first one is on top
        if not chart.visible or chart.stacked:
            continue
        reading = _reading(chart.series, scene, area.width)
        if reading is None:
            continue
        x = area.column(reading.at if scene.cursor is None else scene.cursor, scene.viewport)
        if x is not None:
            y = _cell_row(reading.mean, scene, area, scale)
            canvas.put(x, y, signs[index % len(signs)], Role.SERIES + index)
