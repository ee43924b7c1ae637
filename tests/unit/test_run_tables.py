"""A run's tables: all that was measured, within 78 cells, absent figures as such."""

from __future__ import annotations

from dataclasses import replace

import pytest

from embedctl.headlines import judged_by, told_verdict
from embedctl.lab.presets import PRESETS
from embedctl.records import Comparison, Figure, FigureDelta, Interval, Measurement, MeasurementKind, Run
from embedctl.run_tables import Table, changes, tables
from tests.support import canned

_MS = 12_345.6
_KNOWN = {
    "p50_ms": _MS, "p95_ms": _MS, "p99_ms": _MS, "texts_per_s": 1234.5, "offered_per_s": 1234.5,
    "goodput_per_s": 1234.5, "lag_p99_ms": 12.3, "stalls": 123.0, "ready_ms": _MS, "first_vector_ms": _MS,
    "energy_gross_joule": 1234.5, "energy_above_idle_joule": 1234.5, "idle_watt": 123.4,
    "growth_bytes_per_hour": 123.0 * 1024**2, "drift_ratio": 1.02, "claimed_bytes": 121.6 * 1024**3,
    "pool_low_bytes": 121.6 * 1024**3, "swap_peak_bytes": 121.6 * 1024**3, "pressure_peak_percent": 12.3,
}  # fmt: skip
_NOTES = {
    "p99_ms": "n too small", "goodput_per_s": "answered within 200 ms", "ready_ms": "page cache warm",
    "energy_gross_joule": "energy counter, NVML", "growth_bytes_per_hour": "undecided, soak longer",
}  # fmt: skip


def row(kind: MeasurementKind, shape: str, backend: str, *, known: bool = True) -> Measurement:
    """A row with figures as wide as they get, or without any."""
    figures = tuple(
        Figure(name, value, "", value * 0.9, value * 1.1, _NOTES.get(name, ""))
        if known
        else Figure(name, None, note=_NOTES.get(name, ""))
        for name, value in _KNOWN.items()
    )
    return Measurement(
        backend=backend,
        shape=shape,
        batch=128,
        requests=12_345,
        errors=123 if known else 0,
        latencies_ms=(),
        p50_ms=_MS if known else None,
        p95_ms=_MS if known else None,
        p95_note="n too small",
        texts_per_s=1234.5 if known else None,
        tokens_per_s=123_456.7 if known else None,
        tokens=10,
        peak_bytes=int(121.6 * 1024**3) if known else None,
        peak_source="NVML",
        kind=kind,
        figures=figures,
    )


def run_of(*rows: Measurement) -> Run:
    return replace(canned.run(), measurements=rows)


def widest(table: Table) -> int:
    lines = ["  ".join(line).rstrip() for line in table.lines()]
    return max(map(len, (table.title, *lines, *table.notes)))


def test_every_table_of_the_longest_names_fits_beside_a_scroll_bar() -> None:
    kinds: dict[str, MeasurementKind] = {
        "load": "open loop", "cold": "cold start", "disk": "cold start", "bulk": "bulk", "soak": "soak"
    }  # fmt: skip
    rows = [
        row(kinds.get(stage.name.split()[0], "closed loop"), stage.name, backend, known=known)
        for stage in PRESETS["thorough"].stages
        for backend in ("native", "ollama")
        for known in (True, False)
    ]
    made = tables(run_of(*rows))
    assert len(made) == 8
    assert {table.title: widest(table) for table in made if widest(table) > 78} == {}


def test_what_is_absent_is_so_and_never_zero() -> None:
    for table in tables(run_of(row("soak", "soak", "native", known=False))):
        for cells in table.rows:
            assert any("n/a" in cell for cell in cells)
            assert "0" not in cells[:-1]  # the last one counts errors


def test_a_run_of_before_shows_its_requests_alone() -> None:
    (requests,) = tables(canned.run())
    assert requests.title == "Requests (ms)"
    assert requests.notes == ("* n too small: 72 requests bound p95, 368 bound p99",)


def test_changes_name_what_is_better_or_worse_and_nothing_else() -> None:
    def delta(name: str, verdict: str, change: Interval) -> FigureDelta:
        return FigureDelta("native", "one text", name, 1.0, 2.0, change, True, verdict)  # type: ignore[arg-type]

    worse = delta("p95", "worse", Interval(1.3, 1.25, 1.35))
    same = delta("p50", "no difference that matters", Interval(1.0, 0.99, 1.01))
    table = changes([same, worse])
    assert table is not None
    assert table.rows == (("one text", "native", "p95", "1.30×", "1.25–1.35", "worse"),)
    assert table.notes == (
        "judged by: the whole interval beyond 1.05×, or 1/1.05; of a quality ±0.01",
        "undecided, and so not told: 0 of 2 figures",
    )
    assert widest(table) <= 78
    assert changes([same]) is None


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        (Interval(1.0, 0.9, 1.1), "undecided (≈5× as long)"),
        (Interval(1.0, 0.94, 1.06), "undecided (≈2× as long)"),
        (Interval(1.05, 0.9, 1.2), "undecided"),  # right on the edge: nobody can tell
        (Interval(1.045, 0.9, 1.2), "undecided (>100× as long)"),
        (Interval(1.0, None, None), "undecided"),
        (Interval(3.0, 2.9, 3.1), "undecided"),  # for another reason than its width
    ],
)
def test_an_undecided_verdict_tells_how_much_longer_it_would_take(ratio: Interval, told: str) -> None:
    found = Comparison("load 60 %", "p95", "ollama", "native", ratio, "undecided")
    assert told_verdict(found) == told
    notes = judged_by(replace(canned.run(), comparisons=(found,)))
    assert notes[0] == "judged by: the whole interval beyond 1.05 times as fast, or as slow"
    assert len(notes) == (2 if "long" in told else 1)
    assert told_verdict(replace(found, verdict="slower")) == "slower"
