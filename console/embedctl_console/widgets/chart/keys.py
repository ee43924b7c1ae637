"""The chart's keys. Of two that belong together, one speaks for both where keys are listed."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding

CHART_BINDINGS: Final = (
    Binding(
        "left",
        "step(-1)",
        "Cursor",
        key_display="← →",
        show=False,
        id="chart.left",
        tooltip="move the cursor and read the values under it (ctrl: ten columns)",
    ),
    Binding("right", "step(1)", show=False, id="chart.right"),
    Binding("ctrl+left", "step(-10)", show=False, id="chart.far-left"),
    Binding("ctrl+right", "step(10)", show=False, id="chart.far-right"),
    Binding(
        "home",
        "edge(0)",
        "First, last",
        key_display="home end",
        show=False,
        id="chart.first",
        tooltip="put the cursor to the begin or the end of the window",
    ),
    Binding("end", "edge(1)", show=False, id="chart.last"),
    Binding(
        "escape",
        "drop_cursor",
        "No cursor",
        show=False,
        id="chart.no-cursor",
        tooltip="read the newest values",
    ),
    Binding(
        "plus",
        "zoom(1)",
        "Zoom",
        key_display="+ -",
        id="chart.zoom-in",
        tooltip="zoom at the cursor, as the wheel does at the mouse",
    ),
    Binding("minus", "zoom(-1)", show=False, id="chart.zoom-out"),
    Binding(
        "left_square_bracket",
        "pan(-1)",
        "Pan",
        key_display="[ ]",
        show=False,
        id="chart.back",
        tooltip="move the window (also shift and an arrow, or drag)",
    ),
    Binding("right_square_bracket", "pan(1)", show=False, id="chart.on"),
    Binding("shift+left", "pan(-1)", show=False, id="chart.back-too"),
    Binding("shift+right", "pan(1)", show=False, id="chart.on-too"),
    Binding("equals_sign", "reset", "Reset", id="chart.reset", tooltip="back to the whole range, live"),
    Binding("f", "freeze", "Freeze", id="chart.freeze", tooltip="stand still, or follow the clock again"),
    Binding(
        "up",
        "choose(-1)",
        "Series",
        key_display="↑ ↓",
        show=False,
        id="chart.series-before",
        tooltip="choose a series in the legend (escape: none)",
    ),
    Binding("down", "choose(1)", show=False, id="chart.series-after"),
    Binding(
        "space",
        "toggle_series",
        "Hide, show",
        show=False,
        id="chart.toggle",
        tooltip="hide or show the series chosen in the legend, as a click on it does",
    ),
    Binding(
        "y", "log", "Log", show=False, id="chart.log", tooltip="show values on a logarithmic scale or not"
    ),
)
