"""Dots and characters."""

from __future__ import annotations

import numpy as np
import pytest

from embedctl_console.widgets.chart.raster import (
    ASCII,
    BLOCK,
    BRAILLE,
    NOBODY,
    Charset,
    Picture,
    dot_rows,
    fill,
    merge,
    trace,
)


def lines(picture: Picture) -> list[str]:
    return ["".join(map(chr, row)).rstrip() for row in picture.glyphs]


def ramp(count: int) -> np.ndarray:
    return np.arange(count + 1) / count


def test_values_fall_from_top_to_bottom_and_outliers_to_the_border() -> None:
    rows = dot_rows(np.array([10.0, 5.0, 0.0, 99.0, -99.0]), 0.0, 10.0, 11)
    assert rows.tolist() == [0, 5, 10, 0, 10]


def test_a_logarithmic_scale_gives_each_decade_the_same_height() -> None:
    rows = dot_rows(np.array([1000.0, 100.0, 10.0, 1.0, 0.0]), 1.0, 1000.0, 31, log=True)
    assert rows.tolist() == [0, 10, 20, 30, 30]


def test_a_rising_line_is_one_dot_thick() -> None:
    steps = ramp(8)
    dots = trace(steps[:-1], steps[1:], 0, 1, 9)
    assert dots.sum(axis=0).tolist() == [2, 1, 1, 1, 1, 1, 1, 1]
    assert dots.any(axis=1).all()


@pytest.mark.parametrize("seed", range(40))
def test_every_row_that_a_connected_line_passes_has_a_dot(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = rng.uniform(0, 1, 60)
    peaks = np.maximum(edges[:-1], edges[1:]) + rng.exponential(0.1, 59) * (rng.random(59) < 0.1)
    low, high = np.minimum(edges[:-1], edges[1:]), peaks
    rows = 40
    dots = trace(low, high, 0, 1, rows)
    top = dot_rows(high, 0, 1, rows)
    bottom = dot_rows(low, 0, 1, rows)
    for column in range(59):
        around = dots[:, max(0, column - 1) : column + 2].any(axis=1)
        assert around[top[column] : bottom[column] + 1].all()
        if column:
            both = np.flatnonzero(dots[:, column])
            before = np.flatnonzero(dots[:, column - 1])
            assert min(abs(a - b) for a in both for b in before) <= 1, "the line is torn"


def test_missing_columns_have_no_dots() -> None:
    values = np.array([0.5, np.nan, 0.5])
    assert trace(values, values, 0, 1, 5).any(axis=0).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("charset", "size", "expected"),
    [
        (BRAILLE, 8, ["  ⡠⠊", "⡠⠊"]),
        (BLOCK, 4, [" ▞", "▞"]),
        (ASCII, 4, ["   *", "  *", " *", "*"]),
    ],
)
def test_a_diagonal_in_each_charset(charset: Charset, size: int, expected: list[str]) -> None:
    values = np.arange(float(size))
    dots = trace(values, values, 0, size - 1, size)
    assert lines(merge([dots], charset)) == expected


def test_a_crossing_keeps_the_dots_of_both() -> None:
    up = np.eye(4, dtype=bool)[::-1]
    down = np.eye(4, dtype=bool)
    picture = merge([up, down], BRAILLE)
    assert lines(picture) == ["⡱⢎"]


def test_a_cell_has_the_colour_of_the_series_with_most_dots() -> None:
    few = np.zeros((4, 2), dtype=bool)
    few[0, 0] = True
    many = np.zeros((4, 2), dtype=bool)
    many[3] = True
    assert merge([few, many], BRAILLE).owners.tolist() == [[1]]
    assert merge([many, few], BRAILLE).owners.tolist() == [[0]]


def test_lines_on_top_of_each_other_take_turns() -> None:
    flat = np.zeros((4, 12), dtype=bool)
    flat[2] = True
    assert merge([flat, flat], BRAILLE).owners.tolist() == [[0, 1, 0, 1, 0, 1]]
    assert merge([flat, flat, flat], BRAILLE).owners.tolist() == [[0, 1, 2, 0, 1, 2]]
    assert merge([flat, flat], BRAILLE, turns=False).owners.tolist() == [[0] * 6]


def test_empty_cells_belong_to_nobody() -> None:
    picture = merge([np.zeros((4, 4), dtype=bool)], BRAILLE)
    assert picture.owners.tolist() == [[NOBODY, NOBODY]]
    assert lines(picture) == [""]


def test_ascii_shows_the_owners_sign() -> None:
    upper = np.array([[True, True], [False, False]])
    lower = np.array([[False, False], [True, False]])
    assert lines(merge([upper, lower], ASCII, "*o")) == ["**", "o"]


def test_areas_touch_without_overlapping() -> None:
    zero, half, one = np.zeros(2), np.full(2, 0.5), np.ones(2)
    lower = fill(zero, half, 0, 1, 8)
    upper = fill(half, one, 0, 1, 8)
    assert not (lower & upper).any()
    assert (lower | upper).all()


def test_an_area_of_no_height_shows_nothing() -> None:
    level = np.full(3, 0.4)
    assert not fill(level, level, 0, 1, 8).any()
