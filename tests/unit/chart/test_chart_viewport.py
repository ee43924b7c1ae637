"""Zoom and pan."""

from __future__ import annotations

import numpy as np
import pytest

from embedctl_console.widgets.chart.viewport import LEAST_SPAN, MOST_SPAN, Viewport


@pytest.mark.parametrize("seed", range(50))
def test_zoom_keeps_the_instant_under_the_cursor(seed: int) -> None:
    rng = np.random.default_rng(seed)
    view = Viewport(1e9, 1e9 + 10 ** rng.uniform(1, 7))
    at = view.since + rng.random() * view.span
    closer = view.zoomed(float(10 ** rng.uniform(-3, 3)), at)
    assert closer.share(at) == pytest.approx(view.share(at), abs=1e-6)
    assert LEAST_SPAN * 0.999 <= closer.span <= MOST_SPAN * 1.001


def test_zooming_in_and_out_again_returns() -> None:
    view = Viewport(1000, 1900)
    there_and_back = view.zoomed(1.5, 1300).zoomed(1 / 1.5, 1300)
    assert (there_and_back.since, there_and_back.until) == pytest.approx((1000, 1900))


def test_a_window_does_not_reach_beyond_the_present() -> None:
    assert Viewport(100, 200).ending_by(150) == Viewport(50, 150)
    assert Viewport(100, 200).ending_by(200) == Viewport(100, 200)


def test_a_window_in_steps_stands_still_until_a_column_is_full() -> None:
    begins = {Viewport(now - 100, now).in_steps(50).since for now in np.arange(1000.2, 1001.9, 0.1)}
    assert begins == {902.0}
    assert Viewport(902.1, 1002.1).in_steps(50) == Viewport(904, 1004)


def test_a_window_ends_after_it_begins() -> None:
    with pytest.raises(ValueError, match="ends after"):
        Viewport(5, 5)
