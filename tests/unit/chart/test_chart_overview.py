"""The whole range in one line."""

from __future__ import annotations

import numpy as np
import pytest

from embedctl.series import Series
from embedctl_console.widgets.chart.canvas import Role
from embedctl_console.widgets.chart.overview import draw_overview

DAY = 86_400.0


def recorded(spike: float | None = None) -> Series:
    """Ten days at one entry per ten minutes, nothing in the fourth."""
    at = np.arange(0.0, 10 * DAY, 600.0)
    at = at[(at < 3 * DAY) | (at >= 4 * DAY)]
    values = np.full(len(at), 20.0)
    if spike is not None:
        values[np.searchsorted(at, spike)] = 80.0
    return Series("x", at, values, values, values, 1_800.0)


def test_gaps_spikes_and_the_window_are_seen() -> None:
    canvas = draw_overview(recorded(spike=8.5 * DAY), (6 * DAY, 7 * DAY), (0.0, 10 * DAY), 40)
    line = "".join(map(chr, canvas.glyphs[0]))
    assert line[12:16].strip() == ""
    assert line[34] == "▅" and set(line[:11]) == {"▂"}
    assert (line.index("["), line.index("]")) == (23, 28), "around the window"
    assert (canvas.roles[0, 24:28] == Role.SPAN).all()


@pytest.mark.parametrize(("since", "until"), [(9.999, 10.0), (0.0, 0.001), (5.0, 5.0001), (-1.0, 0.01)])
def test_a_window_smaller_than_a_cell_still_is_marked(since: float, until: float) -> None:
    line = draw_overview(recorded(), (since * DAY, until * DAY), (0.0, 10 * DAY), 40, charset="ascii").text()
    assert 0 < line.index("]") - line.index("[") <= 2


def test_a_lost_end_is_marked() -> None:
    canvas = draw_overview(recorded(), (9 * DAY, 10 * DAY), (0.0, 10 * DAY), 40, lost=[3 * DAY - 600])
    assert chr(canvas.glyphs[0, 11]) == "X"
    assert canvas.roles[0, 11] == Role.ALARM


def test_a_window_before_everything_has_no_brackets() -> None:
    line = draw_overview(recorded(), (-9 * DAY, -8 * DAY), (0.0, 10 * DAY), 40).text()
    assert "[" not in line and "]" not in line


def test_nothing_recorded_is_said() -> None:
    assert draw_overview(Series.empty("x"), (0.0, 1.0), None, 40).text() == "nothing recorded yet"
