"""Figures as people read them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from embedctl import format as fmt
from embedctl.metrics import Unit

GIB = 2.0**30


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1023.6 * 1024, "1.00 MiB"),
        (2.13 * GIB, "2.13 GiB"),
        (23.44 * GIB, "23.4 GiB"),
        (119.7 * GIB, "120 GiB"),
        (-1.5 * GIB, "-1.50 GiB"),
        (5e18, "4,441 PiB"),
        (None, "n/a"),
        (float("nan"), "n/a"),
    ],
)
def test_sizes(value: float | None, text: str) -> None:
    assert fmt.format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (24.14, "ms", "24.1 ms"),
        (1240, "ms", "1,240 ms"),
        (0.0421, "ms", "0.042 ms"),
        (9.999, "ms", "10.0 ms"),
        (61.4, "celsius", "61 °C"),
        (2418, "megahertz", "2,418 MHz"),
        (38.25, "watt", "38.2 W"),
        (280.4, "per_second", "280/s"),
        (0, "percent", "0 %"),
        (12_345, "joule", "12.3 kJ"),
        (512, "joule", "512 J"),
        (1, "flag", "yes"),
        (0, "flag", "no"),
        (None, "ms", "n/a"),
        (float("inf"), "watt", "n/a"),
    ],
)
def test_values_with_their_units(value: float | None, unit: Unit, text: str) -> None:
    assert fmt.format_value(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (86_399, "23 h 59 min"),
        (6.2 * 86_400, "6 d 4 h"),
        (-12, "-12 s"),
        (None, "n/a"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert fmt.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("past", "text"),
    [
        (0.5, "just now"),
        (-3, "just now"),
        (59, "59 s ago"),
        (3599, "59 min ago"),
        (7300, "2 h ago"),
        (2e5, "2 d ago"),
    ],
)
def test_how_long_ago(past: float, text: str) -> None:
    assert fmt.format_ago(1e9 - past, 1e9) == text


def test_rates_and_counts() -> None:
    assert fmt.format_rate(12.3 * 2**20, "bytes") == "12.3 MiB/s"
    assert fmt.format_rate(281.0, "texts") == "281 texts/s"
    assert fmt.format_rate(None, "texts") == "n/a"
    assert fmt.format_count(1_234_567) == "1,234,567"
    assert fmt.format_count(None) == "n/a"


def test_times_follow_the_zone_and_its_rules_at_that_moment() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert fmt.format_moment(1_772_625_600, berlin) == "2026-03-04 13:00:00"
    assert fmt.format_clock(1_783_000_000, berlin) == "15:46:40"
    assert fmt.format_clock(None) == "n/a"
