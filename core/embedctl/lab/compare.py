"""Two runs side by side: what changed, by how much, and whether they may be compared at all.

The two were measured one after the other, so that what differed between the two times is part of the change:
an interval here speaks of the requests of these two runs alone. Backends within one run are compared better,
since they take turns there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final, Literal

from embedctl.headlines import summarize
from embedctl.lab import thresholds
from embedctl.lab.bearing import no_speed, wrong_vectors
from embedctl.lab.load_verdict import widened
from embedctl.lab.parts import capacity, depend, goodput_change, load_share, percentile_change
from embedctl.lab.peaks import STARTING, peak_change, peak_source, steady
from embedctl.lab.statistics import (
    ENOUGH,
    percentile,
    percentile_ratio,
    unpaired_difference,
    unpaired_ratio,
)
from embedctl.records import (
    BackendName,
    Figure,
    FigureDelta,
    Fingerprint,
    Interval,
    Measurement,
    Run,
    RunComparison,
    RunDelta,
)
from embedctl.verdicts import QUALITY_THRESHOLD, THRESHOLD

MATTERS: Final = ("model", "revision", "dtype", "pooling", "normalized", "max_tokens", "dimension")
"""Fields of a fingerprint that decide what was computed; the others decide how fast."""
_MORE_IS_BETTER: Final = frozenset(
    {"texts_per_s", "tokens_per_s", "goodput_per_s", "pool_low_bytes", "gpu_low_bytes"}
)
_NOT_COMPARED: Final = frozenset(
    {
        *("offered_per_s", "stalls", "throttled", "warm_up_requests", "idle_watt", "growth_bytes_per_hour"),
        "blocks",
    }
)
_SURROUNDINGS: Final = ("embedctl", "python", "kernel", "cores", "governor")

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
    pairs = [_Pair(a, b, rows_a[key], rows_b[key]) for key in keys if key in rows_a and key in rows_b]
    deltas = [delta for pair in pairs for delta in pair.figures()]
    differences, conflicts = _differences(a, b)
    return RunComparison(
        a=summarize(a),
        b=summarize(b),
        rows=tuple(_delta(*key, rows_a.get(key), rows_b.get(key)) for key in keys),
        differences=(*differences, *_sources(pairs)),
        conflicts=conflicts,
        figures=tuple(deltas),
        conditions=thresholds.judge(
            conditions,
            deltas,
            {pair.key: f"{pair.no_speed_b} (B)" for pair in pairs if pair.no_speed_b and not pair.no_speed_a},
        ),
        notes=tuple(
            f"{pair.a.backend}, {pair.a.shape}: no verdict on its speed, {why} ({which})"
            for pair in pairs
            for which, why in (("A", pair.no_speed_a), ("B", pair.no_speed_b))
            if why and not wrong_vectors(a if which == "A" else b, pair.a.backend)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """One row of both runs."""

    run_a: Run
    run_b: Run
    a: Measurement
    b: Measurement

    @property
    def key(self) -> tuple[BackendName, str]:
        return self.a.backend, self.a.shape

    @property
    def no_speed_a(self) -> str:
        return no_speed(self.run_a, self.a)

    @property
    def no_speed_b(self) -> str:
        return no_speed(self.run_b, self.b)

    def figures(self) -> Iterator[FigureDelta]:
        """Every figure that both rows have, with the interval of its change."""
        silent = bool(self.no_speed_a or self.no_speed_b)
        for name, x, y, change in (*self._percentiles(), *self._plain(), *self._peak()):
            if silent and name not in thresholds.NO_SPEED:
                change = Interval(change.estimate, None, None, change.level)
            yield _figure_delta(self.a, name, x, y, change)

    def _percentiles(self) -> Iterator[_Change]:
        a, b = self.a, self.b
        for share in ENOUGH:
            if depend(a):
                ratio = percentile_change(a, b, share)
                if ratio is not None and (load := load_share(a)) is not None:
                    ratio = widened(ratio, load, self._capacities())
            else:
                ratio = percentile_ratio(a.latencies_ms, b.latencies_ms, share)
            if ratio is not None:
                x, y = percentile(a.latencies_ms, share), percentile(b.latencies_ms, share)
                yield f"p{share * 100:.0f}", x, y, ratio

    def _plain(self) -> Iterator[_Change]:
        before, after = _named(self.a), _named(self.b)
        for name, one in before.items():
            other = after.get(name)
            if other is None or one.value is None or other.value is None or name in _NOT_COMPARED:
                continue
            x, y = (Interval(f.value or 0.0, f.low, f.high) for f in (one, other))
            relative = name not in thresholds.DIFFERENCES
            change = (unpaired_ratio if relative else unpaired_difference)(x, y)
            if name == "goodput_per_s" and (judged := goodput_change(self.a, self.b)) is not None:
                change = widened(judged, load_share(self.a) or 1.0, self._capacities())
            if change is not None:
                yield name, one.value, other.value, change

    def _peak(self) -> Iterator[_Change]:
        change = peak_change(self.a, self.b, self._peaks())
        if change is not None and self.a.peak_bytes and self.b.peak_bytes:
            name = "load_peak" if self.a.kind == STARTING else "peak"
            yield name, float(self.a.peak_bytes), float(self.b.peak_bytes), change

    def _peaks(self) -> list[tuple[int, int]]:
        later = {row.shape: row for row in steady(self.run_b.measurements) if row.backend == self.a.backend}
        return [
            (row.peak_bytes, other.peak_bytes)
            for row in steady(self.run_a.measurements)
            if row.backend == self.a.backend
            and (other := later.get(row.shape)) is not None
            and row.peak_bytes
            and other.peak_bytes
            and peak_source(row) == peak_source(other)
        ]

    def _capacities(self) -> tuple[Interval, Interval]:
        return capacity(self.run_a, self.a.backend), capacity(self.run_b, self.b.backend)


_Change = tuple[str, float | None, float | None, Interval]
"""A figure's name, its values in A and B, and how it changed."""


def _sources(pairs: Sequence[_Pair]) -> tuple[str, ...]:
    """Peaks that were read at different places are not of one thing, and have no ratio."""
    told = [
        f"{pair.a.backend} peak memory, not compared: {peak_source(pair.a)} → {peak_source(pair.b)}"
        for pair in pairs
        if pair.a.peak_bytes and pair.b.peak_bytes and peak_source(pair.a) != peak_source(pair.b)
    ]
    return tuple(dict.fromkeys(told))


def _named(row: Measurement) -> dict[str, Figure]:
    """A row's figures by name, its columns among them; percentiles of latency have been dealt with."""
    found = {
        figure.name: figure
        for figure in row.figures
        if not figure.name.startswith(("step: ", "p50_", "p95_", "p99_"))
    }
    for name, value in (("texts_per_s", row.texts_per_s), ("tokens_per_s", row.tokens_per_s)):
        found.setdefault(name, Figure(name, value))
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
    up, down = (THRESHOLD, 1 / THRESHOLD) if relative else (QUALITY_THRESHOLD, -QUALITY_THRESHOLD)
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
    for name, run in (("A", a), ("B", b)):
        for backend in run.backends:
            if why := wrong_vectors(run, backend):
                conflicts.append(f"{backend} in {name}: {why}")
                found.append(conflicts[-1])
    return (*found, *_surrounding_differences(a.environment, b.environment)), tuple(conflicts)


def _surrounding_differences(a: Mapping[str, object], b: Mapping[str, object]) -> Iterator[str]:
    """What was different around the backends, as far as both runs tell."""
    for key in _SURROUNDINGS:
        if a.get(key) is not None and b.get(key) is not None and a[key] != b[key]:
            yield f"{key}: {_shown(a[key])} → {_shown(b[key])}"
    before, after = ([str(one) for one in _listed(run.get("co_tenants"))] for run in (a, b))
    if "co_tenants" in a and "co_tenants" in b and bool(before) != bool(after):
        yield f"co-tenants: {', '.join(before) or 'none'} → {', '.join(after) or 'none'}"


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _fingerprint_differences(one: Fingerprint, other: Fingerprint, names: Sequence[str]) -> list[str]:
    return [
        f"{one.backend} {name}: {_shown(getattr(one, name))} → {_shown(getattr(other, name))}"
        for name in names
        if getattr(one, name) != getattr(other, name)
    ]


def _shown(value: object) -> str:
    return "n/a" if value is None else str(value)
