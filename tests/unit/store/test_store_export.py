"""The table for other programs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.errors import StoreError, UsageError
from embedctl.records import Sample
from embedctl.settings import HistorySettings
from embedctl.store import Store, export
from tests.support.store_bench import START, Bench


def test_a_row_names_its_time_twice_and_leaves_absent_figures_empty(store: Store, tmp_path: Path) -> None:
    store.add_sample(Sample(START + 0.5, {"gpu_memory_used": 137_438_953_472.0, "gpu_energy": 12.25}))
    store.add_sample(Sample(START + 1.5, {"gpu_memory_used": 0.0}))
    target = tmp_path / "out" / "history.csv"
    assert store.export_csv(target, START, START + 9, ["gpu_memory_used", "gpu_energy"]) == 2
    assert target.read_text().splitlines() == [
        "time_utc,unix_s,resolution_s,"
        "gpu_memory_used_mean_bytes,gpu_memory_used_min_bytes,gpu_memory_used_max_bytes,"
        "gpu_energy_last_joule,gpu_energy_min_joule,gpu_energy_max_joule",
        "2025-10-09T09:00:00.500Z,1760000400.5,1,137438953472,137438953472,137438953472,12.25,12.25,12.25",
        "2025-10-09T09:00:01.500Z,1760000401.5,1,0,0,0,,,",
    ]


def test_each_stretch_comes_at_its_finest_stored_resolution(bench: Bench, tmp_path: Path) -> None:
    bench.retention = HistorySettings(
        keep_seconds_h=0.05, keep_10_seconds_d=0.1 / 24, keep_minutes_d=0.2 / 24
    )
    store = bench.open()
    for minute in range(40):
        bench.record(store, lambda s: {"gpu_power": float(s)}, range(60 * minute, 60 * minute + 60))
        store.maintain()
    target = tmp_path / "history.csv"
    store.export_csv(target, START, bench.now, ["gpu_power"])
    with target.open() as file:
        rows = list(csv.DictReader(file))
    times = [float(row["unix_s"]) for row in rows]
    widths = [int(row["resolution_s"]) for row in rows]
    assert sorted(set(widths)) == [1, 10, 60, 600]
    assert widths == sorted(widths, reverse=True)
    # The rows tile the window: each begins where the one before it ends.
    assert [time + width for time, width in zip(times, widths, strict=True)] == [*times[1:], bench.now]
    covered = sum(float(row["gpu_power_mean_watt"]) * width for row, width in zip(rows, widths, strict=True))
    assert covered == pytest.approx(sum(range(2400)))


def test_a_window_cuts_the_rows(bench: Bench, store: Store) -> None:
    bench.record(store, lambda s: {"gpu_power": 1.0}, range(20))
    assert [row.at - START for row in store.export_rows(START + 3, START + 5)] == [3, 4, 5]


def test_a_broken_export_leaves_the_old_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "history.csv"
    target.write_text("old")

    def failing(*_: object) -> Iterator[export.ExportRow]:
        yield export.ExportRow(START, 1, {})
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "rows", failing)
    with pytest.raises(StoreError, match="No space left"):
        store.export_csv(target, START, START + 1)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.glob("*history.csv*")] == ["history.csv"]


def test_an_unknown_metric_writes_nothing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        store.export_csv(tmp_path / "x.csv", START, START + 1, ["nope"])
    assert not (tmp_path / "x.csv").exists()


def test_a_link_stays_a_link_and_a_device_is_left_alone(store: Store, tmp_path: Path) -> None:
    """Put in its place by renaming, a table would replace /dev/stdout or /dev/null themselves."""
    link, aim = tmp_path / "link.csv", tmp_path / "aim.csv"
    link.symlink_to(aim)
    store.export_csv(link, START, START + 1, ["gpu_power"])
    assert link.is_symlink() and aim.read_text(encoding="utf-8").startswith("time_utc")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StoreError, match="device"):
        store.export_csv(pipe, START, START + 1, ["gpu_power"])
    assert not pipe.is_file()
