"""Two runs side by side."""

from __future__ import annotations

from dataclasses import fields

from embedctl.headlines import summarize
from embedctl.records import Fingerprint, Measurement, Run, RunComparison, RunDelta


def compare(a: Run, b: Run) -> RunComparison:
    """Lay run B beside run A, row by row; rows that only one of them has are kept, half empty."""
    rows_a = {(row.backend, row.shape): row for row in a.measurements}
    rows_b = {(row.backend, row.shape): row for row in b.measurements}
    keys = [*rows_a, *(key for key in rows_b if key not in rows_a)]
    return RunComparison(
        a=summarize(a),
        b=summarize(b),
        rows=tuple(_delta(*key, rows_a.get(key), rows_b.get(key)) for key in keys),
        differences=_differences(a, b),
    )


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


def _differences(a: Run, b: Run) -> tuple[str, ...]:
    """What the runs' vectors and numbers depend on and does not agree."""
    found = [f"workload: {a.workload} → {b.workload}"] if a.workload != b.workload else []
    prints_b = {fingerprint.backend: fingerprint for fingerprint in b.fingerprints}
    for one in a.fingerprints:
        other = prints_b.get(one.backend)
        if other is not None:
            found += _fingerprint_differences(one, other)
    return tuple(found)


def _fingerprint_differences(one: Fingerprint, other: Fingerprint) -> list[str]:
    return [
        f"{one.backend} {field.name}: {_shown(getattr(one, field.name))} → "
        f"{_shown(getattr(other, field.name))}"
        for field in fields(Fingerprint)
        if getattr(one, field.name) != getattr(other, field.name)
    ]


def _shown(value: object) -> str:
    return "n/a" if value is None else str(value)
