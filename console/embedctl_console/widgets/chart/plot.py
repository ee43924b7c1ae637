"""Puts a chart together: title, legend with values, axes, lines, marks and cursor on one canvas. Pure."""

from __future__ import annotations

from dataclasses import replace
from textwrap import wrap
from typing import Final

from embedctl_console.widgets.chart.axis import value_scale
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.guides import (
    draw_cursor,
    draw_labels,
    draw_thresholds,
    draw_time_axis,
    draw_value_axis,
    draw_verticals,
    heaviest_marks,
)
from embedctl_console.widgets.chart.legend import draw_header, legend_height
from embedctl_console.widgets.chart.paths import bounds_of, draw_paths, draw_signs, paths_of
from embedctl_console.widgets.chart.raster import CHARSETS
from embedctl_console.widgets.chart.scene import GUTTER, PlotArea, Scene

_LEAST_WIDTH: Final = GUTTER + 8
_LEAST_HEIGHT: Final = 5


def plot_area(scene: Scene, width: int, height: int) -> PlotArea | None:
    """Where the plot lies in a frame of this size; None where there is no room for one."""
    if width < _LEAST_WIDTH or height < _LEAST_HEIGHT:
        return None
    top = 1 + legend_height(scene, width)
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
    paths = paths_of(scene, area.width * CHARSETS[scene.charset].across)
    bounds = bounds_of(paths)
    marked = heaviest_marks(scene, area)
    if bounds is None:
        draw_header(canvas, scene, area)
        draw_time_axis(canvas, scene, area, marked)
        _draw_empty(canvas, scene, area)
        return canvas
    levels = (*bounds, *(threshold.value for threshold in scene.thresholds))
    scale = value_scale(
        min(levels), max(levels), scene.unit, area.height, log=scene.log, ceiling=scene.ceiling
    )
    # Not every chart that is asked for a logarithmic scale has one: a 0 has no place there.
    draw_header(canvas, replace(scene, title=f"{scene.title} · log") if scale.log else scene, area)
    draw_value_axis(canvas, scene, area, scale)
    draw_time_axis(canvas, scene, area, marked)
    draw_verticals(canvas, scene, area, marked)
    draw_paths(canvas, scene, area, scale, paths)
    draw_cursor(canvas, scene, area)
    draw_thresholds(canvas, scene, area, scale)
    draw_signs(canvas, scene, area, scale)
    draw_labels(canvas, scene, area, marked)
    return canvas


def _draw_empty(canvas: Canvas, scene: Scene, area: PlotArea) -> None:
    lines = wrap(scene.empty, area.width - 2)[: area.height]
    for y, line in enumerate(lines, area.y + (area.height - len(lines)) // 2):
        canvas.put(area.x + (area.width - len(line)) // 2, y, line, Role.FAINT)
