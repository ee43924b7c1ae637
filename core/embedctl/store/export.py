"""Samples as a table for other programs: every stretch at its finest stored resolution."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from embedctl.files import whole_file
from embedctl.metrics import METRICS
from embedctl.store.database import HistoryFile
from embedctl.store.tiers import TIERS, Tier
from embedctl.store.windows import progress, stored

_ROWS_AT_ONCE: Final = 3_600
"""Rows per read: a long read would keep the write-ahead log from being folded into the file."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric in one row; all three are equal for a sample as it was read."""

    mean: float
    """Of a cumulative metric the last reading."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExportRow:
    at: float
    """Unix seconds: the moment of a sample, else the start of its bucket."""
    resolution: int
    """Seconds that the row stands for."""
    figures: Mapping[str, Figure]
    """By metric key; an absent metric is not in it."""


def rows(file: HistoryFile, metrics: Sequence[str], since: float, until: float) -> Iterator[ExportRow]:
    """The window in the order of time, coarse stretches first: they are the old ones."""
    since_ms, until_ms = int(since * 1000), int(until * 1000)
    with file.read() as db:
        marks = progress(db)
    start = since_ms
    for tier in reversed(TIERS):
        # A tier serves the stretch that the next finer one has given up.
        stop = until_ms + 1 if tier.finer is None else marks[tier.finer.seconds].thinned_until_ms
        yield from _stretch(file, tier, metrics, tier.bucket(start) if tier.finer else start, stop, until_ms)
        start = max(start, stop)


def _stretch(
    file: HistoryFile, tier: Tier, metrics: Sequence[str], start: int, stop: int, until_ms: int
) -> Iterator[ExportRow]:
    last = min(stop - 1, until_ms)
    while start <= last:
        with file.read() as db:
            first = db.execute(
                f"SELECT min(at_ms) FROM {tier.table} WHERE at_ms BETWEEN ? AND ?",  # noqa: S608
                (start, last),
            ).fetchone()[0]
            if first is None:
                return
            end = min(last, first + _ROWS_AT_ONCE * tier.ms - 1)
            block = stored(db, tier, metrics, first, end)
        present = ~np.isnan(block.mean)
        cells = zip(
            block.at_ms.tolist(),
            block.mean.tolist(),
            block.low.tolist(),
            block.high.tolist(),
            present.tolist(),
            strict=True,
        )
        for at_ms, means, lows, highs, there in cells:
            figures = {key: Figure(means[i], lows[i], highs[i]) for i, key in enumerate(metrics) if there[i]}
            yield ExportRow(at_ms / 1000, tier.seconds, figures)
        start = end + 1


def header(metrics: Sequence[str]) -> list[str]:
    """`time_utc`, `unix_s`, `resolution_s`, then three columns per metric with the unit last."""
    names = ["time_utc", "unix_s", "resolution_s"]
    for key in metrics:
        metric = METRICS[key]
        middle = "last" if metric.cumulative else "mean"
        names += [f"{key}_{part}_{metric.unit}" for part in (middle, "min", "max")]
    return names


def write_csv(target: Path, metrics: Sequence[str], table: Iterable[ExportRow]) -> int:
    """Write the rows and put the file in its place once it is whole; returns the number of rows.

    Raises:
        StoreError: The file cannot be written; what was there before still is.
    """
    count = 0
    with whole_file(target) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header(metrics))
        for row in table:
            writer.writerow(_cells(row, metrics))
            count += 1
    return count


def _cells(row: ExportRow, metrics: Sequence[str]) -> list[str]:
    moment = datetime.fromtimestamp(row.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    cells = [moment, _number(row.at), str(row.resolution)]
    for key in metrics:
        figure = row.figures.get(key)
        if figure is None:
            cells += ("", "", "")
        elif figure.low == figure.high:  # most rows are samples as read: say it once
            cells += [_number(figure.mean)] * 3
        else:
            cells += (_number(figure.mean), _number(figure.low), _number(figure.high))
    return cells


def _number(value: float) -> str:
    """Bytes in full, the rest without digits that no sensor has."""
    return str(int(value)) if value.is_integer() else f"{value:.13g}"
