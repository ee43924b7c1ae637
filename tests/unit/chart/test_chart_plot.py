"""Whole frames, as text."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from embedctl.series import Series
from embedctl_console.widgets.chart.canvas import Canvas, Role
from embedctl_console.widgets.chart.marks import Mark
from embedctl_console.widgets.chart.plot import draw, plot_area
from embedctl_console.widgets.chart.scene import ChartSeries, Scene, Span, Threshold
from embedctl_console.widgets.chart.viewport import Viewport

NOW = 1_772_625_600.0
"""2026-03-04 12:00 UTC."""


def series(values: np.ndarray, step: float = 5.0, *, until: float = NOW, gap: float = 15.0) -> Series:
    at = until - step * np.arange(len(values), dtype=np.float64)[::-1]
    keep = ~np.isnan(values)
    kept = values[keep]
    return Series("x", at[keep], kept, kept, kept, gap)


def scene(**changes: object) -> Scene:
    step = np.where(np.arange(61) < 30, 20.0, 60.0)
    flat = np.full(61, 40.0)
    flat[20:28] = np.nan
    base = Scene(
        unit="ms",
        series=[ChartSeries("a", "native", series(step)), ChartSeries("b", "ollama", series(flat))],
        marks=[Mark(NOW - 152, "switch", "ollama → native")],
        viewport=Viewport(NOW - 300, NOW),
        title="Latency",
        state="LIVE",
        tz=ZoneInfo("UTC"),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def show(canvas: Canvas) -> str:
    return "\n" + canvas.text() + "\n"


def test_a_frame_in_braille() -> None:
    assert (
        show(draw(scene(), 60, 12))
        == """
Latency                                               ● LIVE
● native 60.0 ms   ■ ollama 40.0 ms
   60 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈⢸⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉⠉●
         │                        ⢸ollama → native
   40 ms ┤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤┈┈┈┈┈┈┈⠤⢼⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤■
         │                        ⡇
         │                        ⡇
   20 ms ┤⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠒⠁┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈
         │                        ╎
    0 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈╎┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈
         └──────────┴─────────────S─────┴───────────────────
Mar 04            11:56               11:58
"""
    )


def test_a_frame_in_ascii_has_a_sign_per_series() -> None:
    assert (
        show(draw(scene(charset="ascii"), 60, 12))
        == """
Latency                                                 LIVE
* native 60.0 ms   o ollama 40.0 ms
   60 ms +........................**************************
         |                        *ollama → native
   40 ms +oooooooooooooooo.......o*ooooooooooooooooooooooooo
         |                        *
         |                        *
   20 ms +************************:.........................
         |                        :
    0 ms +........................:.........................
         +----------+-------------S-----+-------------------
Mar 04            11:56               11:58
"""
    )


def test_a_frame_in_blocks_with_the_cursor_on_an_event() -> None:
    assert (
        show(draw(scene(charset="block", cursor=NOW - 150), 60, 12))
        == """
Latency  Mar 04 11:57:30  S ollama → native           ● LIVE
● native 60.0 ms   ■ ollama 40.0 ms
   60 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈▐●▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀
         │                        ▐│
   40 ms ┤▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄┈┈┈┈┈┈┈▄▟■▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
         │                        ▌│
         │                        ▌│
   20 ms ┤▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀╎│┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈
         │                        ╎│
    0 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈╎│┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈
         └──────────┴─────────────S─────┴───────────────────
Mar 04            11:56               11:58
"""
    )


def test_stacked_areas_add_up() -> None:
    assert (
        show(draw(scene(series=[replace(one, stacked=True) for one in scene().series]), 60, 11))
        == """
Latency                                               ● LIVE
● native 60.0 ms   ■ ollama 40.0 ms
  100 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈⢀⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │                        ⢸⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀       ⣀⢸⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
   50 ms ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿┈┈┈┈┈┈┈⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿       ⣿⡇⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣤⣤⣤⣤⣤⣤⣤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
    0 ms ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         └──────────┴─────────────S─────┴───────────────────
Mar 04            11:56               11:58
"""
    )


def test_a_logarithmic_frame() -> None:
    assert (
        show(draw(scene(log=True), 60, 12))
        == """
Latency · log                                         ● LIVE
● native 60.0 ms   ■ ollama 40.0 ms
  100 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈╎ollama → native┈┈┈┈┈┈┈┈┈┈
         │                        ╎
         │                        ⢠⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤●
   50 ms ┤┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈⢸┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈
         │⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤       ⠤⢼⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤⠤■
         │                        ⡇
         │                        ⡇
   20 ms ┤⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⣀⠇┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈
         └──────────┴─────────────S─────┴───────────────────
Mar 04            11:56               11:58
"""
    )


def test_an_empty_frame_says_what_to_do_next() -> None:
    assert (
        show(draw(scene(series=[], empty="Nothing yet: press l"), 60, 8))
        == """
Latency                                               ● LIVE


                         Nothing yet: press l


         └──────────┴─────────────S─────┴───────────────────
Mar 04            11:56               11:58
"""
    )


def roles_of(canvas: Canvas, role: int) -> int:
    return int((canvas.roles == role).sum())


def test_both_series_stay_visible_where_one_crosses_the_other() -> None:
    canvas = draw(scene(), 60, 12)
    area = plot_area(scene(), 60, 12)
    assert area is not None
    column = area.column(NOW - 155, scene().viewport)
    assert column is not None
    assert roles_of(canvas, Role.SERIES) > 40
    assert roles_of(canvas, Role.SERIES + 1) > 40
    crossing = int(canvas.glyphs[area.y + 2, column]) - 0x2800
    assert crossing.bit_count() == 5, "four dots upright and one more of the level line"


def test_a_spike_of_one_entry_among_many_reaches_its_height() -> None:
    values = np.full(40_000, 5.0)
    values[31_234] = 95.0
    spiky = Series("x", NOW - 40_000 + np.arange(40_000.0), values, values, values, 3.0)
    one = scene(series=[ChartSeries("a", "a", spiky)], marks=[], viewport=Viewport(NOW - 40_000, NOW))
    canvas = draw(one, 80, 20)
    area = plot_area(one, 80, 20)
    assert area is not None
    column = area.column(NOW - 40_000 + 31_234, one.viewport)
    plot_rows = np.flatnonzero((canvas.roles[area.y :] >= Role.SERIES).any(axis=1))
    assert plot_rows[0] <= 1
    assert canvas.roles[area.y + plot_rows[0], column] == Role.SERIES


def test_the_read_out_gives_exact_values_and_the_range_in_the_column() -> None:
    at = NOW - 3_600 + np.arange(3_600.0)
    values = 10.0 + (np.arange(3_600) % 60 == 30) * 5.0
    fine = scene(
        series=[ChartSeries("a", "native", Series("x", at, values, values, values, 3.0))],
        marks=[],
        viewport=Viewport(NOW - 3_600, NOW),
        cursor=NOW - 1_800.0,
    )
    assert "native 10.0 ms (10.0 ms – 15.0 ms)" in draw(fine, 60, 12).text()
    close = draw(replace(fine, viewport=Viewport(NOW - 1_810, NOW - 1_790)), 60, 12).text()
    assert "native 10.0 ms" in close
    assert "(" not in close


def test_a_cursor_in_a_gap_reads_nothing() -> None:
    text = draw(scene(cursor=NOW - 180), 60, 12).text()
    assert "native 20.0 ms" in text
    assert "ollama n/a" in text


def test_a_hidden_series_is_in_the_legend_only() -> None:
    shown = scene(series=[scene().series[0], replace(scene().series[1], visible=False)])
    canvas = draw(shown, 60, 12)
    assert roles_of(canvas, Role.SERIES + 1) == 1, "the blank in place of its sign"
    assert "ollama 40.0 ms" in canvas.text()


def test_of_several_marks_in_a_cell_the_weightiest_is_shown() -> None:
    marks = [Mark(NOW - 100.2, "load", "a"), Mark(NOW - 100.1, "error", "b"), Mark(NOW - 100, "unload", "c")]
    axis = draw(scene(marks=marks), 60, 12).text().splitlines()[-2]
    assert axis.count("!") == 1
    assert "L" not in axis and "U" not in axis


def test_marks_outside_the_window_are_not_drawn() -> None:
    outside = scene(marks=[Mark(NOW - 301, "switch", "a"), Mark(NOW, "switch", "b")])
    assert "S" not in draw(outside, 60, 12).text()


def test_wide_and_invisible_characters_do_not_shift_the_frame() -> None:
    first = draw(scene(title="埋め込み\tx"), 60, 12).text().splitlines()[0]
    assert first.startswith("?????x")
    assert len(first) == 60


def pool(native: np.ndarray, other: np.ndarray) -> list[ChartSeries]:
    """A pool of 100 ms, of all units: what two use, and the rest."""
    free = 100.0 - native - other
    layers = (("n", native, "solid"), ("o", other, "solid"), ("f", free, "sparse"))
    return [ChartSeries(key, key, series(v), stacked=True, texture=t) for key, v, t in layers]  # type: ignore[arg-type]


def test_a_pool_shows_gaps_and_what_is_free_as_a_pattern() -> None:
    native, other = np.full(61, 25.0), np.full(61, 50.0)
    native[30:40] = other[30:40] = np.nan
    shown = scene(series=pool(native, other), marks=[], ceiling=100.0)
    assert (
        show(draw(shown, 60, 12))
        == """
Latency                                               ● LIVE
● n 25.0 ms   ■ o 50.0 ms   ▲ f 25.0 ms
  100 ms ┤⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁┈┈┈┈┈┈┈┈⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄
         │⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁        ⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄⠁⠄
         │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⡇        ⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⡇        ⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
   50 ms ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⡇┈┈┈┈┈┈┈┈⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⡇        ⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         │⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⡇        ⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
    0 ms ┤⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⡇┈┈┈┈┈┈┈┈⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿⣿
         └──────────┴───────────────────┴───────────────────
Mar 04            11:56               11:58
"""
    )


def test_an_events_label_hides_no_series_but_what_is_free() -> None:
    native, other = np.full(61, 25.0), np.full(61, 50.0)
    free = scene(series=pool(native, other), ceiling=100.0)
    assert "ollama → native" in draw(free, 60, 12).text().splitlines()[2]
    full = scene(series=pool(native, np.full(61, 75.0)), ceiling=100.0)
    assert "ollama" not in draw(full, 60, 12).text()
    low = draw(free, 60, 11).text()
    assert "ollama" not in low, "a low plot keeps its room for the series"


def test_labels_of_close_events_do_not_run_into_each_other() -> None:
    marks = [
        Mark(NOW - 290, "load", "native is ready"),
        Mark(NOW - 230, "run", "quick"),
        Mark(NOW - 200, "stop", "x"),
    ]
    level = ChartSeries("a", "a", series(np.full(61, 20.0)))
    line = draw(scene(marks=marks, series=[level], ceiling=100.0), 60, 14).text().splitlines()[2]
    assert "╎native …┈╎" in line
    assert "quick" not in line, "too little room for it"
    assert "╎x┈┈┈" in line


def test_the_cursor_is_seen_over_areas() -> None:
    shown = scene(series=pool(np.full(61, 25.0), np.full(61, 50.0)), ceiling=100.0, cursor=NOW - 60)
    assert roles_of(draw(shown, 60, 14), Role.CURSOR) >= 10


@pytest.mark.parametrize("seed", range(40))
def test_no_spike_of_an_area_is_averaged_away(seed: int) -> None:
    """One entry among thousands is higher; its column is inked in its colour up to the spike's height."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2_000, 20_000))
    at = NOW - count + np.arange(float(count))
    spike = int(rng.integers(1, count - 1))
    native, other = np.full(count, 10.0), np.full(count, 20.0)
    native[spike] = 10.0 + float(rng.uniform(20, 60))
    layers = [
        ChartSeries(key, key, Series(key, at, values, values, values, 3.0), stacked=True)
        for key, values in (("n", native), ("o", other))
    ]
    layers = layers if seed % 2 else layers[::-1]
    charset = ("braille", "block", "ascii")[seed % 3]
    width, height = int(rng.integers(40, 200)), int(rng.integers(10, 50))
    shown = scene(
        series=layers,
        marks=[],
        viewport=Viewport(NOW - count, NOW),
        ceiling=100.0,
        charset=charset,
        unit="percent",
    )
    canvas, area = draw(shown, width, height), plot_area(shown, width, height)
    assert area is not None
    column = area.column(float(at[spike]), shown.viewport)
    assert column is not None
    index = 0 if seed % 2 else 1
    height_of_spike = float(native[spike]) + (0.0 if seed % 2 else 20.0)
    row = area.y + (area.height - 1) * (1 - height_of_spike / 100.0)
    owners = canvas.roles[area.y : area.y + area.height, column]
    owned = np.flatnonzero(owners == Role.SERIES + index) + area.y
    assert len(owned) and owned[0] <= row + 1.5


def test_a_line_over_areas_keeps_its_colour() -> None:
    line = ChartSeries("t", "in use", series(np.full(61, 75.0)))
    canvas = draw(scene(series=[*pool(np.full(61, 25.0), np.full(61, 50.0)), line], ceiling=100.0), 60, 14)
    assert roles_of(canvas, Role.SERIES + 3) >= 49


def test_a_threshold_is_a_line_with_a_label_and_within_the_scale() -> None:
    shown = scene(thresholds=[Threshold(95.0, "floor")])
    text = draw(shown, 60, 12).text()
    (line,) = [line for line in text.splitlines() if "floor" in line]
    assert line.count("╌") > 30
    assert "100 ms" in text, "the scale reaches up to it"
    assert "floor" not in draw(scene(), 60, 12).text()


def test_a_span_is_marked_on_the_axis_and_by_its_name() -> None:
    spans = [Span("A", NOW - 250, NOW - 200), Span("B", NOW - 100, None), Span("C", NOW - 900, NOW - 800)]
    canvas = draw(scene(spans=spans, marks=[]), 60, 12)
    lines = canvas.text().splitlines()
    assert 8 <= lines[-2].count("━") <= 11, "50 of 300 seconds, and one column for what is still open"
    assert "A" in lines[2] and "B" in lines[2] and "C" not in lines[2]


def test_when_every_series_is_hidden_it_says_what_it_was_told_to_say() -> None:
    hidden = scene(series=[replace(one, visible=False) for one in scene().series], empty="space shows it")
    assert "space shows it" in " ".join(draw(hidden, 60, 12).text().split())


@pytest.mark.parametrize("width", [0, 1, 10, 17, 18, 30, 300])
@pytest.mark.parametrize("height", [0, 1, 3, 5, 7, 90])
@pytest.mark.parametrize("charset", ["braille", "block", "ascii"])
def test_any_size_can_be_drawn(width: int, height: int, charset: str) -> None:
    canvas = draw(scene(charset=charset, cursor=NOW - 100), width, height)
    assert canvas.glyphs.shape == (height, width)


def test_runs_join_cells_of_one_role_and_spaces_to_what_is_before_them() -> None:
    canvas = Canvas(10, 1)
    canvas.put(1, 0, "ab", Role.TITLE)
    canvas.put(5, 0, "cd", Role.TITLE)
    canvas.put(8, 0, "e", Role.AXIS)
    assert list(canvas.runs(0)) == [(" ab  cd ", Role.TITLE), ("e ", Role.AXIS)]


def test_changes_name_the_cells_that_differ() -> None:
    before, after = Canvas(10, 3), Canvas(10, 3)
    after.put(2, 1, "x", Role.TEXT)
    after.put(7, 1, "y", Role.TEXT)
    assert list(after.changes(before)) == [(1, 2, 8)]


def test_the_plot_does_not_move_while_the_cursor_does() -> None:
    areas = {plot_area(scene(cursor=NOW - back), 50, 14) for back in range(0, 300, 7)}
    assert len(areas) == 1
