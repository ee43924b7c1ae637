"""What stands in a plot besides the series: axes, grid, thresholds, events, spans, the cursor. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from embedctl.format import local_time
from embedctl_console.widgets.chart.axis import Scale, time_ticks
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.marks import Mark
from embedctl_console.widgets.chart.paths import cell_row
from embedctl_console.widgets.chart.scene import PlotArea, Scene

_LINES: Final = {
    "braille": ("│", "─", "└", "┤", "┴", "┈", "╎", "╌", "━"),
    "ascii": ("|", "-", "+", "+", "+", ".", ":", "~", "="),
}
_LEAST_LABEL: Final = 6
"""Cells: a shorter piece of an event's title says nothing."""
_MOST_LABEL: Final = 28
_LABELLED_HEIGHT: Final = 8
"""Lines: in a lower plot the labels would take what little room there is."""


def _lines(scene: Scene) -> tuple[str, ...]:
    return _LINES["ascii" if scene.charset == "ascii" else "braille"]


def draw_value_axis(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale) -> None:
    """The axis with its labels, and the grid."""
    side, _, _, tick, _, grid, *_ = _lines(scene)
    canvas.fill(area.x - 1, area.y, 1, area.height, side, Role.AXIS)
    for value, label in zip(scale.ticks, scale.labels, strict=True):
        y = cell_row(value, scene, area, scale)
        canvas.put(max(0, area.x - 2 - len(label)), y, label, Role.AXIS)
        canvas.put(area.x - 1, y, tick, Role.AXIS)
        canvas.fill(area.x, y, area.width, 1, grid, Role.GRID)


def draw_time_axis(canvas: Canvas, scene: Scene, area: PlotArea, marked: Mapping[int, Mark]) -> None:
    """The axis with its labels, the marked spans and the events' letters (`marked`, by column) on it."""
    _, base, corner, _, tick, *_, thick = _lines(scene)
    y = area.y + area.height
    canvas.put(area.x - 1, y, corner + base * area.width, Role.AXIS)
    for span in scene.spans:
        since = max(span.since, scene.viewport.since)
        until = min(span.until if span.until is not None else span.since, scene.viewport.until)
        if until >= since and until > scene.viewport.since and since < scene.viewport.until:
            begin = area.x + int(scene.viewport.share(since) * area.width)
            end = area.x + min(area.width - 1, int(scene.viewport.share(until) * area.width))
            canvas.put(begin, y, thick * (end - begin + 1), Role.SPAN)
    ticks = time_ticks(scene.viewport.since, scene.viewport.until, scene.tz, max(2, area.width // 12))
    free = area.x
    for moment in ticks:
        x = area.column(moment.at, scene.viewport)
        if x is None:
            continue
        canvas.put(x, y, tick, Role.SPAN if canvas.roles[y, x] == Role.SPAN else Role.AXIS)
        begin = min(max(x - len(moment.label) // 2, area.x), canvas.width - len(moment.label))
        if scene.time_labels and begin >= free:
            canvas.put(begin, y + 1, moment.label, Role.AXIS)
            free = begin + len(moment.label) + 2
    if scene.time_labels:
        canvas.put(0, y + 1, local_time(scene.viewport.since, scene.tz).strftime("%b %d"), Role.AXIS)
    for x, mark in marked.items():
        canvas.put(x, y, mark.letter, _role(mark))


def draw_verticals(canvas: Canvas, scene: Scene, area: PlotArea, marked: Mapping[int, Mark]) -> None:
    """Stems of events (`marked`, by column), spans' ends and the cursor, to lie behind the lines."""
    side, *_, dashed, _, _ = _lines(scene)
    for column, mark in marked.items():
        canvas.fill(column, area.y, 1, area.height, dashed, _role(mark))
    stems = []
    for span in scene.spans:
        ends = (span.since,) if span.until is None else (span.since, span.until)
        stems += [(at, side, Role.SPAN) for at in ends]
    if scene.cursor is not None:
        stems.append((scene.cursor, side, Role.CURSOR))
    for at, line, role in stems:
        x = area.column(at, scene.viewport)
        if x is not None:
            canvas.fill(x, area.y, 1, area.height, line, role)


def draw_cursor(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    """The cursor's stem once more, over areas, which would hide it."""
    x = area.column(scene.cursor, scene.viewport) if scene.cursor is not None else None
    if x is not None and any(one.stacked and one.visible for one in scene.series):
        canvas.fill(x, area.y, 1, area.height, _lines(scene)[0], Role.CURSOR)


def draw_thresholds(canvas: Canvas, scene: Scene, area: PlotArea, scale: Scale) -> None:
    """A dashed line across everything at each threshold within the scale, its label at the right."""
    line = _lines(scene)[-2]
    for threshold in scene.thresholds:
        if not scale.bottom <= threshold.value <= scale.top:
            continue
        y = cell_row(threshold.value, scene, area, scale)
        canvas.put(area.x, y, line * area.width, Role.ALARM)
        label = f" {threshold.label} "[: area.width]
        canvas.put(area.x + area.width - len(label), y, label, Role.ALARM)


def draw_labels(canvas: Canvas, scene: Scene, area: PlotArea, marked: Mapping[int, Mark]) -> None:
    """Names of spans at the top, those of events (`marked`, by column) in the upper half.

    None hides a series.
    """
    y = area.y
    for span in scene.spans:
        x = area.column(span.since, scene.viewport)
        if x is not None:
            canvas.put(x, y, span.name, Role.SPAN)
    if area.height < _LABELLED_HEIGHT:
        return
    columns = sorted(marked.items())
    solid = {Role.SERIES + i for i, one in enumerate(scene.series) if one.texture != "sparse"}
    taken = (*solid, Role.SPAN, Role.ALARM, Role.CURSOR)
    open_cells = ~np.isin(canvas.roles[y : y + area.height // 2], taken)
    for index, (x, mark) in enumerate(columns):
        following = columns[index + 1][0] - 1 if index + 1 < len(columns) else canvas.width
        end = min(following, x + 2 + _MOST_LABEL, canvas.width)
        if end - x - 1 < min(_LEAST_LABEL, len(mark.label)):
            continue
        free = open_cells[:, x + 1 : end]
        rooms = np.logical_and.accumulate(free, axis=1).sum(axis=1)
        row, room = int(rooms.argmax()), int(rooms.max())  # the upper one of equally roomy lines
        label = mark.label
        if len(label) > room:
            if room < _LEAST_LABEL:
                continue
            label = label[: room - 1] + ("~" if scene.charset == "ascii" else "…")
        canvas.put(x + 1, y + row, label, _role(mark))


def heaviest_marks(scene: Scene, area: PlotArea) -> dict[int, Mark]:
    """The mark that each column of the frame with marks shows."""
    heaviest: dict[int, Mark] = {}
    since, until, span = scene.viewport.since, scene.viewport.until, scene.viewport.span
    for mark in scene.marks:
        if since <= mark.at < until:  # as `PlotArea.column` counts, without a call for each of many marks
            x = area.x + min(area.width - 1, int((mark.at - since) / span * area.width))
            held = heaviest.get(x)
            if held is None or mark.weight >= held.weight:
                heaviest[x] = mark
    return heaviest


def _role(mark: Mark) -> Role:
    return Role.ALARM if mark.alarming else Role.MARK
