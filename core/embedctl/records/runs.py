"""Benchmarks: their rows, their ratios, two of them side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embedctl.records.backends import BackendName, Fingerprint


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate with its confidence interval."""

    estimate: float
    low: float | None
    high: float | None
    level: float = 0.95


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
    """Raw, one per good request, in the order sent."""
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


@dataclass(frozen=True, slots=True)
class Comparison:
    """One shape, two backends: how many times as fast native is as Ollama."""

    shape: str
    metric: Literal["latency", "throughput"]
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
    state: Literal["done", "cancelled", "failed"] = "done"
    notes: tuple[str, ...] = ()
    title: str = ""


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
class RunComparison:
    a: RunSummary
    b: RunSummary
    rows: tuple[RunDelta, ...]
    differences: tuple[str, ...]
    """Fingerprint fields in which the runs differ: `native dtype: float16 → float32`."""
