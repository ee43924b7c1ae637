"""Pictures of Check, Quality, Settings, a run's distribution and a Dashboard with a trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedctl.records import Condition, Figure, Trial
from tests.console.test_app_snapshots import at_all_sizes, at_two_sizes, picture, sizes
from tests.support import canned
from tests.support.canned import quality_study
from tests.support.fake_engine import FakeEngine, fresh_engine


def studied() -> FakeEngine:
    """Two checks and two studies of quality."""
    engine = FakeEngine()
    for study in (canned.check_study(2, at=canned.NOW - 9 * 86_400), quality_study(5), quality_study(6)):
        engine.stored_studies[study.id] = study
    return engine


@at_two_sizes
def test_dashboard_with_a_trial_a_slow_backend_and_a_stale_check(
    snap_compare: Any, size: tuple[int, int]
) -> None:
    engine = FakeEngine()
    engine.running_trial = canned.trial_report(Trial("ollama", 0.1, 0.05))
    engine.conditions = {"ollama": Condition.SLOW}
    engine.changes = ("ollama backend_version: 0.33.0 → 0.34.2",)
    assert picture(snap_compare, engine, size)


@at_all_sizes
def test_check(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, studied(), size, "5")


@at_two_sizes
def test_check_without_one(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, fresh_engine(), size, "5")


@at_two_sizes
def test_check_running(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = studied()

    def halfway() -> None:
        engine.job("check").progress("ollama: length limit", done=1420, total=3120, rate=12.0, eta=141.0)

    assert picture(snap_compare, engine, size, "k", then=halfway)


@sizes((80, 24))
def test_check_failed(snap_compare: Any, size: tuple[int, int]) -> None:
    engine = fresh_engine()

    def fail() -> None:
        engine.job("check").fail("No backend could be loaded", why="no answer", remedy="ollama serve")

    assert picture(snap_compare, engine, size, "k", then=fail)


@at_two_sizes
def test_evidence_of_parity(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, studied(), size, "5", *["down"] * 6, "enter")


@at_two_sizes
def test_quality(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, studied(), size, "6")


@sizes((80, 24))
def test_quality_without_a_study(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "6")


@sizes((120, 40))
def test_a_study_of_quality_in_full(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, studied(), size, "6", "enter")


def with_intervals() -> FakeEngine:
    """Its newest run has intervals, and one row with a long tail."""
    engine = FakeEngine()
    run = engine.stored_runs[7]
    rng = np.random.default_rng(3)
    rows = []
    for row in run.measurements:
        tail = tuple(
            float(x) for x in np.array(row.latencies_ms) * rng.lognormal(0, 0.3, len(row.latencies_ms))
        )
        figures = tuple(
            Figure(name, value, "ms", value * 0.97, value * 1.05)
            for name, value in (
                ("p50_ms", row.p50_ms),
                ("p95_ms", row.p95_ms),
                ("p99_ms", 1.6 * (row.p50_ms or 0)),
            )
            if value is not None
        )
        rows.append(replace(row, latencies_ms=tail, figures=figures))
    engine.stored_runs[7] = replace(run, measurements=tuple(rows))
    return engine


@at_two_sizes
def test_distribution_of_a_run(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, with_intervals(), size, "3", "d", "down")


@sizes((120, 40))
def test_distribution_as_histograms(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, with_intervals(), size, "3", "d", "g")


@at_two_sizes
def test_settings(snap_compare: Any, size: tuple[int, int]) -> None:
    assert picture(snap_compare, FakeEngine(), size, "8", *["down"] * 5)


@at_two_sizes
def test_a_setting_that_is_not_allowed(
    snap_compare: Any, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCTL_NATIVE__DEVICE", "cpu")
    engine = FakeEngine(home=Path("/home/ada/.local/share/embedctl"))
    assert picture(snap_compare, engine, size, "8", *["down"] * 4, "enter", *"int8")
