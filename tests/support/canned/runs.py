"""Benchmarks of both backends, and two of them side by side."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from embedctl.lab.compare import compare as lay_side_by_side
from embedctl.records import (
    Comparison,
    Interval,
    Measurement,
    Run,
    RunComparison,
    RunSummary,
)
from tests.support.canned.backends import fingerprint
from tests.support.canned.machine import GIB, NOW

_SHAPES: Final = (
    ("one text", 1, 24.6, 96.4),
    ("batch of 32", 32, 118.0, 492.0),
    ("batch of 16", 16, 64.0, 251.0),
    ("batch of 64", 64, 229.0, 981.0),
    ("batch of 128", 128, 455.0, 1990.0),
)


def _measurement(backend: str, shape: str, batch: int, p50: float) -> Measurement:
    requests = 80 if batch == 1 else 24
    enough = requests >= 72
    rng = np.random.default_rng(batch)
    return Measurement(
        backend=backend,
        shape=shape,
        batch=batch,
        requests=requests,
        errors=0 if backend == "native" else int(batch == 128),
        latencies_ms=tuple(float(x) for x in p50 * rng.normal(1.0, 0.05, requests)),
        p50_ms=p50,
        p95_ms=p50 * 1.31,
        p95_note="" if enough else "n too small",
        texts_per_s=batch / p50 * 1000,
        tokens_per_s=batch / p50 * 1000 * 61,
        tokens=batch * 61 * requests,
        peak_bytes=int((2.31 if backend == "native" else 1.39) * GIB),
        peak_source="NVML's bytes of the backend's processes",
    )


def run(run_id: int = 7, *, slowdown: float = 1.0) -> Run:
    """A quick benchmark of both backends."""
    rows, ratios = [], []
    for shape, batch, native_ms, ollama_ms in _SHAPES:
        rows.append(_measurement("native", shape, batch, native_ms * slowdown))
        rows.append(_measurement("ollama", shape, batch, ollama_ms))
        ratio = ollama_ms / (native_ms * slowdown)
        ratios.append(
            Comparison(
                shape=shape,
                metric="latency" if batch == 1 else "throughput",
                baseline="ollama",
                candidate="native",
                ratio=Interval(ratio, ratio * 0.94, ratio * 1.07),
                verdict="faster" if batch < 128 else "undecided",
            )
        )
    return Run(
        id=run_id,
        at=NOW - 86_400 * (8 - run_id),
        preset="quick",
        seconds=94.0,
        backends=("native", "ollama"),
        measurements=tuple(rows),
        comparisons=tuple(ratios),
        fingerprints=(fingerprint("native"), fingerprint("ollama")),
        workload="queries-multilingual-v1 (sha256 4b1f…)",
        notes=("GPU clock held at 2,411 MHz throughout",),
    )


def summary(of: Run) -> RunSummary:
    first = next((c for c in of.comparisons if c.shape == "one text"), None)
    headline = (
        f"one text: native {first.ratio.estimate:.1f}× faster ({first.ratio.low:.1f}–{first.ratio.high:.1f})"
        if first
        else "one backend only"
    )
    return RunSummary(of.id, of.at, of.preset, of.title, of.backends, of.state, of.seconds, headline)


def compare(a: Run, b: Run) -> RunComparison:
    """Two runs side by side, as the engine would lay them."""
    return replace(
        lay_side_by_side(a, b), a=summary(a), b=summary(b), differences=("native dtype: float32 → float16",)
    )
