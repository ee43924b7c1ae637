"""Benchmarks: their rows, their ratios, two of them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from embedctl.records.backends import BackendName, Fingerprint


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate with its confidence interval."""

    estimate: float
    low: float | None
    high: float | None
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a row, with its interval where there is one."""

    name: str
    """`p95_ms`, `goodput_per_s`, `pool_low_bytes`, …"""
    value: float | None
    unit: str = ""
    """`ms`, `per_second`, `bytes`, `bytes_per_hour`, `joule`, `watt`, `ratio` or nothing (a count)."""
    low: float | None = None
    high: float | None = None
    note: str = ""
    """Where it comes from, why it is absent, or why it is not to be trusted."""


MeasurementKind = Literal["cold start", "closed loop", "open loop", "bulk", "soak", "quality"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of a run: one backend under one request shape."""

    backend: BackendName
    shape: str
    """`one text`, `batch of 32`, …"""
    batch: int
    requests: int
    errors: int
    latencies_ms: tuple[float, ...]
    """Raw, one per good request, in the order sent; of an open loop from the intended send time."""
    p50_ms: float | None
    p95_ms: float | None
    p95_note: str
    """Empty, or why p95 is not to be trusted (`n too small`)."""
    texts_per_s: float | None
    tokens_per_s: float | None
    tokens: int | None
    """Useful tokens sent, counted by one tokenizer for all backends where there is one."""
    peak_bytes: int | None
    """Peak of the backend's own processes while this row ran."""
    peak_source: str
    kind: MeasurementKind = "closed loop"
    figures: tuple[Figure, ...] = ()
    """What this kind of row has beyond the columns above, and their intervals."""
    series: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Further raw readings by name, such as `sent_s` or `held_bytes`."""

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One shape, two backends: how many times as fast native is as Ollama."""

    shape: str
    metric: Literal["latency", "throughput", "p95", "goodput"]
    """Of an open loop: p95 from the intended send time, or requests answered in time per second."""
    baseline: BackendName
    candidate: BackendName
    ratio: Interval
    """Baseline time over candidate time: above 1, the candidate is faster."""
    verdict: Literal["faster", "slower", "no difference that matters", "undecided"]


@dataclass(frozen=True, slots=True)
class Run:
    """One benchmark with all that is needed to judge it later."""

    id: int
    at: float
    preset: str
    seconds: float
    backends: tuple[BackendName, ...]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    fingerprints: tuple[Fingerprint, ...]
    workload: str
    """Name and content hash of the texts."""
    state: Literal["done", "cancelled", "failed", "unfinished"] = "done"
    """`unfinished`: it is being measured, or its process ended before it did."""
    notes: tuple[str, ...] = ()
    title: str = ""
    seed: int = 0
    """Of the order of blocks and of arrival times."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """The machine at the time of the run: kernel, clocks, governor, load, co-tenants."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run without its raw measurements, for lists."""

    id: int
    at: float
    preset: str
    title: str
    backends: tuple[BackendName, ...]
    state: str
    seconds: float
    headline: str
    """The run in one line, such as `one text: native 3.1× faster (2.9–3.3)`."""


@dataclass(frozen=True, slots=True)
class RunDelta:
    """One backend under one shape in two runs, laid side by side. Ratios are B over A."""

    backend: BackendName
    shape: str
    a_p50_ms: float | None
    b_p50_ms: float | None
    p50_ratio: float | None
    a_texts_per_s: float | None
    b_texts_per_s: float | None
    texts_per_s_ratio: float | None
    a_peak_bytes: int | None
    b_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class FigureDelta:
    """One figure of one row in two runs."""

    backend: BackendName
    shape: str
    name: str
    a: float | None
    b: float | None
    change: Interval | None
    """B over A, or B less A where `relative` is false; the ends are None where no interval can be given."""
    relative: bool
    verdict: Literal["better", "worse", "no difference that matters", "undecided"]


@dataclass(frozen=True, slots=True)
class ConditionOutcome:
    """One condition of `--fail-on`, against one row."""

    text: str
    """The condition as it was written, without blanks around it."""
    delta: FigureDelta
    outcome: Literal["met", "not met", "undecided"]


@dataclass(frozen=True, slots=True)
class RunComparison:
    a: RunSummary
    b: RunSummary
    rows: tuple[RunDelta, ...]
    differences: tuple[str, ...]
    """Fingerprint fields in which the runs differ: `native dtype: float16 → float32`."""
    conflicts: tuple[str, ...] = ()
    """Those of the differences that make it a comparison of different work, or of different vectors."""
    figures: tuple[FigureDelta, ...] = ()
    conditions: tuple[ConditionOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    """Rows that say nothing of a speed, and why."""
