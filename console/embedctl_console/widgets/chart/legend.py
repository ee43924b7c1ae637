"""Title, state and legend: the lines above the plot, with every series' value. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from embedctl.format import ABSENT, format_value, local_time
from embedctl.series import Reading, Series, extent, reading_at
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.marks import nearest_mark
from embedctl_console.widgets.chart.palette import SIGNS
from embedctl_console.widgets.chart.scene import GUTTER, PlotArea, Scene

_VALUE_WIDTH: Final = 8

LegendEntry = tuple[int, str, str]
"""Index of the series, its sign, its label with the value."""


def legend_height(scene: Scene, width: int) -> int:
    """Lines that the legend takes; not dependent on the cursor, so that the plot does not move with it."""
    return len(_lines(_entries(scene, width, spread=False), width))


def draw_header(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    """The title's line and the legend below it."""
    canvas.put(0, 0, scene.title, Role.TITLE)
    right = canvas.width
    if scene.state:
        sign = {"LIVE": "●", "PAUSED": "‖"}.get(scene.state, "")
        badge = f"{sign} {scene.state}" if sign and scene.charset != "ascii" else scene.state
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
    for y, line in enumerate(_fitting(scene, canvas.width, area.y - 1), 1):
        x = 0
        for index, sign, text in line:
            one = scene.series[index]
            canvas.put(x, y, sign, Role.SERIES + index)
            words = Role.CURSOR if one.key == scene.chosen else Role.TEXT if one.visible else Role.FAINT
            canvas.put(x + 2, y, text, words)
            if one.key == scene.chosen:
                canvas.put(x + 1, y, ">", Role.CURSOR)
            x += 2 + len(text) + 2


def legend_key_at(scene: Scene, x: int, y: int, width: int, area: PlotArea) -> str | None:
    """Key of the series whose entry in the legend is at a cell of the frame; None elsewhere."""
    lines = _fitting(scene, width, area.y - 1)
    if not 1 <= y <= len(lines):
        return None
    begin = 0
    for index, _, text in lines[y - 1]:
        if begin <= x < begin + 2 + len(text):
            return scene.series[index].key
        begin += 2 + len(text) + 2
    return None


def reading(series: Series, scene: Scene, columns: int) -> Reading | None:
    """The entry that the read-out is about: the one at the cursor or, without a cursor, the newest shown."""
    if scene.cursor is not None:
        return reading_at(series, scene.cursor, max(scene.viewport.span / columns, series.gap) / 2)
    newest = int(np.searchsorted(series.at, scene.viewport.until)) - 1
    if newest < 0 or series.at[newest] < scene.viewport.since:
        return None
    return reading_at(series, float(series.at[newest]), 0.0)


def _fitting(scene: Scene, width: int, height: int) -> list[list[LegendEntry]]:
    """The legend with ranges where they fit into `height` lines, else without."""
    lines = _lines(_entries(scene, width, spread=True), width)
    if len(lines) > height:
        lines = _lines(_entries(scene, width, spread=False), width)
    return lines[:height]


def _entries(scene: Scene, width: int, *, spread: bool) -> list[LegendEntry]:
    """Every series with its value at the cursor, or its newest one without a cursor."""
    signs = SIGNS[scene.charset]
    entries = []
    for index, chart in enumerate(scene.series):
        value = _value_text(chart.series, scene, width - GUTTER, spread=spread)
        sign = signs[index % len(signs)] if chart.visible else " "
        # Values have one width, so that nothing moves while they change.
        entries.append((index, sign, f"{chart.label} {value:<{_VALUE_WIDTH}}"))
    return entries


def _value_text(series: Series, scene: Scene, columns: int, *, spread: bool) -> str:
    """The entry's value and, where the cursor's column holds others too, their range."""
    found = reading(series, scene, columns)
    if found is None:
        return ABSENT
    text = format_value(found.mean, scene.unit)
    if scene.cursor is None or not spread:
        return text
    reach = scene.viewport.span / columns / 2
    ends = extent(series, scene.cursor - reach, scene.cursor + reach) or (found.low, found.high)
    low, high = (format_value(end, scene.unit) for end in ends)
    return text if low == high else f"{text} ({low} – {high})"


def _lines(entries: Sequence[LegendEntry], width: int) -> list[list[LegendEntry]]:
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
