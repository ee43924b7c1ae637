"""Peaks of memory in two runs, and how far one reading of each can be trusted. Pure.

A row has one peak, and one reading shows no scatter. What there is to judge it by is how much the change
differs from row to row of the same backend: as much as that, a single one may be off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from embedctl.lab.statistics import reading_interval
from embedctl.records import Interval, Measurement

STARTING: Final = "cold start"
"""Rows of this kind hold what a load needs for a moment, on top of what stays."""
_GRAIN: Final = 2 * 1024**2
"""Bytes in which drivers give memory out: no reading is finer."""


def peak_source(row: Measurement) -> str:
    """Where the peak was read."""
    return row.peak_source.partition(", read right before")[0]


def steady(rows: Sequence[Measurement]) -> list[Measurement]:
    """Rows whose peak is that of a backend at work, and not of its load."""
    return [row for row in rows if row.peak_bytes and row.kind != STARTING]


def peak_change(a: Measurement, b: Measurement, others: Sequence[tuple[int, int]]) -> Interval | None:
    """B's peak over A's; without ends from fewer than three rows, and None where there is none to compare.

    Args:
        others: The peaks of all steady rows of the backend that both runs have, these two among them.
    """
    if not a.peak_bytes or not b.peak_bytes or peak_source(a) != peak_source(b):
        return None
    ratio = b.peak_bytes / a.peak_bytes
    if a.kind == STARTING:
        return Interval(ratio, None, None)
    grain = math.hypot(_GRAIN / a.peak_bytes, _GRAIN / b.peak_bytes)
    return reading_interval(ratio, [y / x for x, y in others], least=grain)
