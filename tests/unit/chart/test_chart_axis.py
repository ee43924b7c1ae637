"""Scales and ticks."""

from __future__ import annotations

import math
from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from embedctl.metrics import Unit
from embedctl_console.widgets.chart.axis import time_ticks, value_scale

GIB = 2.0**30
BERLIN = ZoneInfo("Europe/Berlin")
UTC = ZoneInfo("UTC")


@pytest.mark.parametrize(
    ("low", "high", "unit", "labels"),
    [
        (3 * GIB, 90 * GIB, "bytes", [" 0 GiB", "32 GiB", "64 GiB", "96 GiB"]),
        (0, 2.2 * GIB, "bytes", ["0 GiB", "1 GiB", "2 GiB"]),
        (0, 700 * 2**20, "bytes", ["  0 MiB", "256 MiB", "512 MiB"]),
        (0, 1.4 * GIB, "bytes", ["0.0 GiB", "0.5 GiB", "1.0 GiB", "1.5 GiB"]),
        (0, 100, "percent", ["  0 %", " 50 %", "100 %"]),
        (20, 48, "ms", [" 0 ms", "20 ms", "40 ms"]),
        (101, 119, "ms", ["100 ms", "105 ms", "110 ms", "115 ms", "120 ms"]),
        (0.02, 0.07, "ms", ["0.00 ms", "0.02 ms", "0.04 ms", "0.06 ms"]),
        (0, 45_000, "ms", [" 0 s", "20 s", "40 s"]),
        (55, 61, "celsius", ["54 °C", "56 °C", "58 °C", "60 °C"]),
        (0, 280, "per_second", ["  0/s", "100/s", "200/s", "300/s"]),
        (1_980, 2_418, "megahertz", ["1,800 MHz", "2,000 MHz", "2,200 MHz", "2,400 MHz"]),
        (0, 4_000_000, "joule", ["    0 kJ", "1,000 kJ", "2,000 kJ", "3,000 kJ", "4,000 kJ"]),
    ],
)
def test_ticks_are_round_and_their_numbers_in_line(
    low: float, high: float, unit: Unit, labels: list[str]
) -> None:
    scale = value_scale(low, high, unit, 9)
    assert list(scale.labels) == labels
    assert len({len(label) for label in scale.labels}) == 1


@pytest.mark.parametrize("seed", range(200))
def test_a_scale_holds_its_values_and_few_enough_ticks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = np.sort(10.0 ** rng.uniform(-3, 12, 2))
    unit: Unit = rng.choice(["bytes", "ms", "watt", "celsius", "per_second"])
    if unit == "bytes":
        high += 8  # there is no part of a byte
    rows = int(rng.integers(2, 60)) if seed % 2 else 3
    log = bool(rng.random() < 0.3)
    scale = value_scale(float(low), float(high), unit, rows, log=log)
    assert scale.bottom <= low * (1 + 1e-9) and high <= scale.top * (1 + 1e-9)
    assert all(scale.bottom <= tick <= scale.top * (1 + 1e-9) for tick in scale.ticks)
    assert 2 <= len(scale.ticks) <= max(3, rows)
    assert len(set(scale.labels)) == len(scale.labels)


def test_sizes_and_shares_begin_at_zero_and_others_where_they_are() -> None:
    assert value_scale(90 * GIB, 91 * GIB, "bytes", 10).bottom == 0
    assert value_scale(97, 98, "percent", 10).bottom == 0
    assert value_scale(61, 62, "celsius", 10).bottom == 61
    assert value_scale(3, 62, "celsius", 10).bottom == 0


def test_a_ceiling_is_the_upper_end() -> None:
    scale = value_scale(0, 3, "percent", 10, ceiling=100)
    assert scale.top == 100
    assert scale.labels[-1] == "100 %"


@pytest.mark.parametrize("value", [0.0, 5.0, 1e12])
def test_a_constant_has_room_around_it(value: float) -> None:
    for unit in ("bytes", "ms"):
        scale = value_scale(value, value, unit, 8)
        assert scale.bottom <= value <= scale.top
        assert scale.top > scale.bottom


def test_a_logarithmic_scale_goes_by_decades_and_no_further_than_its_values() -> None:
    scale = value_scale(3, 900, "ms", 12, log=True)
    assert scale.log
    assert (scale.bottom, scale.top) == (2, 1000)
    assert [label.strip() for label in scale.labels] == ["10 ms", "100 ms", "1,000 ms"]
    narrow = value_scale(21, 149, "ms", 12, log=True)
    assert [label.strip() for label in narrow.labels] == ["20 ms", "50 ms", "100 ms", "200 ms"]
    assert len(value_scale(21, 149, "ms", 4, log=True).ticks) == 2


def test_zeros_and_sizes_have_no_logarithm() -> None:
    assert not value_scale(0, 900, "ms", 12, log=True).log
    assert not value_scale(1, 900, "bytes", 12, log=True).log


# Time


def at(text: str, tz: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=tz).timestamp()


@pytest.mark.parametrize(
    ("since", "until", "labels"),
    [
        ("2026-03-04 11:59:50", "2026-03-04 12:00:10", ["11:59:50", "11:59:55", "12:00:00", "12:00:05"]),
        ("2026-03-04 11:47", "2026-03-04 12:02", ["11:50", "11:55", "12:00"]),
        ("2026-03-04 11:20", "2026-03-04 12:20", ["11:30", "11:45", "12:00", "12:15"]),
        ("2026-03-03 21:10", "2026-03-04 03:10", ["22:00", "Mar 04", "02:00"]),
        ("2026-03-03 11:00", "2026-03-04 11:00", ["12:00", "18:00", "Mar 04", "06:00"]),
        ("2026-02-26 11:00", "2026-03-05 11:00", ["Feb 27", "Mar 01", "Mar 03", "Mar 05"]),
        ("2026-02-02 11:00", "2026-03-04 11:00", ["Feb 16", "Mar 02"]),
        ("2025-12-04 11:00", "2026-03-04 11:00", ["Jan 2026", "Feb 2026", "Mar 2026"]),
        ("2024-03-04 11:00", "2026-03-04 11:00", ["Jul 2024", "Jan 2025", "Jul 2025", "Jan 2026"]),
    ],
)
def test_time_ticks_are_round_local_moments(since: str, until: str, labels: list[str]) -> None:
    ticks = time_ticks(at(since), at(until), BERLIN, 4)
    assert [tick.label for tick in ticks] == labels


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_ticks_stay_on_round_hours_when_the_clocks_change(day: str, hours: int) -> None:
    since = at(f"{day} 00:00")
    ticks = time_ticks(since, since + hours * 3600, BERLIN, 9)
    assert [tick.label for tick in ticks][1:] == [f"{hour:02d}:00" for hour in range(3, 24, 3)]
    assert ticks[-1].at == at(f"{day} 21:00")


def test_what_a_float_loses_changes_no_ticks() -> None:
    since = at("2026-03-04 11:00:07")
    exact = time_ticks(since, since + 300, BERLIN, 5)
    assert len(exact) == 5
    assert time_ticks(since, since + 300 + 3e-7, BERLIN, 5) == exact


def test_the_hour_that_comes_twice_has_both_its_ticks() -> None:
    since = at("2026-10-25 00:00")
    labels = [tick.label for tick in time_ticks(since, since + 5 * 3600, BERLIN, 6)]
    assert labels == ["Oct 25", "01:00", "02:00", "02:00", "03:00"]


@pytest.mark.parametrize("seed", range(100))
def test_ticks_ascend_lie_inside_and_are_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    span = 10.0 ** rng.uniform(1, 7.9)
    since = 1.7e9 + rng.uniform(0, 1e8)
    most = int(rng.integers(2, 15))
    ticks = time_ticks(since, since + span, UTC if seed % 2 else BERLIN, most)
    assert all(a.at < b.at for a, b in pairwise(ticks))
    assert all(since <= tick.at < since + span for tick in ticks)
    assert len(ticks) <= most + math.ceil(span / (360 * 86_400)) + 1
