"""Two runs side by side: what changed, by how much, and whether they may be compared at all.

The two were measured one after the other, so that what differed between the two times is part of the change:
an interval here speaks of the requests of these two runs alone. Backends within one run are compared better,
since they take turns there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Final, Literal

from embedctl.headlines import summarize
from embedctl.lab import thresholds
from embedctl.lab.statistics import (
    ENOUGH,
    THRESHOLD,
    percentile,
    percentile_ratio,
    unpaired_difference,
    unpaired_ratio,
)
from embedctl.records import (
    Figure,
    FigureDelta,
    Fingerprint,
    Interval,
    Measurement,
    Run,
    RunComparison,
    RunDelta,
)

MATTERS: Final = ("model", "revision", "dtype", "pooling", "normalized", "max_tokens", "dimension")
"""Fields of a fingerprint that decide what was computed; the others decide how fast."""
_MORE_IS_BETTER: Final = frozenset(
    {"texts_per_s", "tokens_per_s", "goodput_per_s", "pool_low_bytes", "gpu_low_bytes"}
)
_NOT_COMPARED: Final = frozenset(
    {"offered_per_s", "stalls", "throttled", "warm_up_requests", "idle_watt", "growth_bytes_per_hour"}
)
_DIFFERENCE_THRESHOLD: Final = 0.01

Change = Literal["better", "worse", "no difference that matters", "undecided"]


def compare(a: Run, b: Run, *, fail_on: str = "") -> RunComparison:
    """Lay run B beside run A, row by row; rows that only one of them has are kept, half empty.

    Raises:
        UsageError: `fail_on` cannot be read, or names what was not measured in both.
    """
    conditions = thresholds.parse(fail_on)
    rows_a = {(row.backend, row.shape): row for row in a.measurements}
    rows_b = {(row.backend, row.shape): row for row in b.measurements}
    keys = [*rows_a, *(key for key in rows_b if key not in rows_a)]
    deltas = [
        delta
        for key in keys
        if key in rows_a and key in rows_b
        for delta in figures(rows_a[key], rows_b[key])
    ]
    differences, conflicts = _differences(a, b)
    return RunComparison(
        a=summarize(a),
        b=summarize(b),
        rows=tuple(_delta(*key, rows_a.get(key), rows_b.get(key)) for key in keys),
        differences=differences,
        conflicts=conflicts,
        figures=tuple(deltas),
        conditions=thresholds.judge(conditions, deltas),
    )


def figures(a: Measurement, b: Measurement) -> list[FigureDelta]:
    """Every figure that both rows have, with the interval of its change."""
    deltas = []
    for share in ENOUGH:
        ratio = percentile_ratio(a.latencies_ms, b.latencies_ms, share)
        if ratio is not None:
            x, y = percentile(a.latencies_ms, share), percentile(b.latencies_ms, share)
            deltas.append(_figure_delta(a, f"p{share * 100:.0f}", x, y, ratio))
    before, after = _plain(a), _plain(b)
    for name, one in before.items():
        other = after.get(name)
        if other is None or one.value is None or other.value is None or name in _NOT_COMPARED:
            continue
        before_, after_ = (Interval(f.value or 0.0, f.low, f.high) for f in (one, other))
        relative = name not in thresholds.DIFFERENCES
        change = (unpaired_ratio if relative else unpaired_difference)(before_, after_)
        if change is not None:
            deltas.append(_figure_delta(a, name, one.value, other.value, change))
    return deltas


def _plain(row: Measurement) -> dict[str, Figure]:
    """A row's figures by name, its columns among them; percentiles of latency have been dealt with."""
    found = {
        figure.name: figure
        for figure in row.figures
        if not figure.name.startswith(("step: ", "p50_", "p95_", "p99_"))
    }
    peak = None if row.peak_bytes is None else float(row.peak_bytes)
    for name, value in (("texts_per_s", row.texts_per_s), ("tokens_per_s", row.tokens_per_s)):
        found.setdefault(name, Figure(name, value))
    # One reading of a size has no scatter of its own to make an interval from: it counts as exact.
    found["peak"] = Figure("peak", peak, "bytes", peak, peak)
    return found


def _figure_delta(
    row: Measurement, name: str, x: float | None, y: float | None, change: Interval
) -> FigureDelta:
    relative = name not in thresholds.DIFFERENCES
    better_up = name in _MORE_IS_BETTER or not relative
    return FigureDelta(
        row.backend, row.shape, name, x, y, change, relative, judge(change, relative, better_up)
    )


def judge(change: Interval, relative: bool, better_up: bool) -> Change:
    """The interval of a change against what matters: 5 % of a ratio, 0.01 of a quality."""
    if change.low is None or change.high is None:
        return "undecided"
    up, down = (THRESHOLD, 1 / THRESHOLD) if relative else (_DIFFERENCE_THRESHOLD, -_DIFFERENCE_THRESHOLD)
    if change.low > up:
        return "better" if better_up else "worse"
    if change.high < down:
        return "worse" if better_up else "better"
    return "no difference that matters" if change.low >= down and change.high <= up else "undecided"


def _delta(backend: str, shape: str, a: Measurement | None, b: Measurement | None) -> RunDelta:
    def of(row: Measurement | None, name: str) -> float | None:
        value: float | None = getattr(row, name) if row else None
        return value

    return RunDelta(
        backend=backend,
        shape=shape,
        a_p50_ms=of(a, "p50_ms"),
        b_p50_ms=of(b, "p50_ms"),
        p50_ratio=_ratio(of(a, "p50_ms"), of(b, "p50_ms")),
        a_texts_per_s=of(a, "texts_per_s"),
        b_texts_per_s=of(b, "texts_per_s"),
        texts_per_s_ratio=_ratio(of(a, "texts_per_s"), of(b, "texts_per_s")),
        a_peak_bytes=a.peak_bytes if a else None,
        b_peak_bytes=b.peak_bytes if b else None,
    )


def _ratio(a: float | None, b: float | None) -> float | None:
    return b / a if a and b is not None else None


def _differences(a: Run, b: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the runs' vectors and numbers depend on and does not agree; and which of it matters."""
    found = [f"workload: {a.workload} → {b.workload}"] if a.workload != b.workload else []
    conflicts = list(found)
    prints_b = {fingerprint.backend: fingerprint for fingerprint in b.fingerprints}
    for one in a.fingerprints:
        other = prints_b.get(one.backend)
        if other is not None:
            found += _fingerprint_differences(one, other, [field.name for field in fields(Fingerprint)])
            conflicts += _fingerprint_differences(one, other, MATTERS)
    if not {mark.backend for mark in a.fingerprints} & set(prints_b):
        conflicts.append("backends: they have none in common")
        found.append(conflicts[-1])
    return tuple(found), tuple(conflicts)


def _fingerprint_differences(one: Fingerprint, other: Fingerprint, names: Sequence[str]) -> list[str]:
    return [
        f"{one.backend} {name}: {_shown(getattr(one, name))} → {_shown(getattr(other, name))}"
        for name in names
        if getattr(one, name) != getattr(other, name)
    ]


def _shown(value: object) -> str:
    return "n/a" if value is None else str(value)
