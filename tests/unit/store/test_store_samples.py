"""Samples in, windows out: tiers, roll-up, retention, provenance."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from sqlite_utils import Database

from embedctl.errors import UsageError
from embedctl.records import Event, Provenance, Sample
from embedctl.settings import HistorySettings
from embedctl.store import Store
from embedctl.store.tiers import TIERS
from tests.support.store_bench import START, Bench

HOUR, DAY = 3_600, 86_400


def power(second: int) -> dict[str, float]:
    return {"gpu_power": float(second)}


def dump(store: Store) -> dict[str, list[tuple[object, ...]]]:
    db = Database(store.path)
    tables = [tier.table for tier in TIERS] + ["tier"]
    return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


def total(store: Store, column: str, table: str) -> float:
    return Database(store.path).execute(f"SELECT total({column}) FROM {table}").fetchone()[0]


def test_a_short_window_gives_the_samples_as_they_were_read(bench: Bench, store: Store) -> None:
    store.add_sample(Sample(START + 0.25, {"gpu_power": 31.5}))
    store.add_sample(Sample(START + 1.25, {}))
    store.add_sample(Sample(START + 2.25, {"gpu_power": 33.5}))
    history = store.history(START, START + 60, ["gpu_power", "native_p50"])
    series = history.series["gpu_power"]
    assert history.resolution == 1
    assert series.at.tolist() == [START + 0.25, START + 2.25]
    assert series.low.tolist() == series.mean.tolist() == series.high.tolist() == [31.5, 33.5]
    assert len(history.series["native_p50"]) == 0


def test_both_ends_of_a_window_belong_to_it(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(10))
    series = store.history(START + 2, START + 5, ["gpu_power"]).series["gpu_power"]
    assert series.mean.tolist() == [2, 3, 4, 5]


def test_figures_that_are_no_numbers_are_absent(store: Store) -> None:
    store.add_sample(Sample(START, {"gpu_power": math.nan, "gpu_temperature": math.inf, "gpu_energy": 1}))
    series = store.history(START, START + 1).series
    assert [len(series[key]) for key in ("gpu_power", "gpu_temperature", "gpu_energy")] == [0, 0, 1]


def test_a_metric_that_does_not_exist_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="gpu_wattage"):
        store.history(START, START + 1, ["gpu_wattage"])


@pytest.mark.parametrize(
    ("span", "resolution"),
    [(15 * 60, 1), (HOUR, 10), (6 * HOUR, 60), (DAY, 60), (7 * DAY, 600), (30 * DAY, 3600)],
)
def test_the_window_decides_the_resolution(
    bench: Bench, store: Store, span: float, resolution: float
) -> None:
    bench.record(store, power, range(3))
    assert store.history(START - span, START, points=600).resolution == resolution


def test_a_coarse_window_reaches_up_to_the_newest_sample_before_any_roll_up(
    bench: Bench, store: Store
) -> None:
    bench.record(store, power, range(725))
    before = store.history(START, START + DAY, ["gpu_power"])
    store.maintain()
    after = store.history(START, START + DAY, ["gpu_power"])
    assert before.resolution == after.resolution == 60
    for history in (before, after):
        series = history.series["gpu_power"]
        assert series.at.tolist() == [START + 60 * i for i in range(13)]
        assert series.low.tolist() == [60.0 * i for i in range(13)]
        assert series.high.tolist() == [*(60.0 * i + 59 for i in range(12)), 724.0]
        assert series.mean[0] == 29.5


def test_roll_up_counts_each_reading_once(bench: Bench, store: Store) -> None:
    for minute in range(25):
        bench.record(store, power, range(60 * minute, 60 * minute + 60))
        store.maintain()
        store.maintain()
    for table, seconds in (("sample_10s", 1500), ("sample_60s", 1500), ("sample_600s", 1200)):
        assert total(store, "gpu_power_n", table) == seconds
        assert total(store, "gpu_power_n * gpu_power_mean", table) == sum(range(seconds))


def test_a_second_pass_changes_nothing(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(1300))
    store.maintain()
    once = dump(store)
    store.maintain()
    assert dump(store) == once


def test_a_bucket_cut_by_a_restart_is_rolled_up_whole(bench: Bench) -> None:
    first = bench.open()
    bench.record(first, power, range(35))
    first.maintain()
    first.close()
    second = bench.open()
    bench.record(second, power, range(35, 65))
    second.maintain()
    row = next(Database(bench.path).query("SELECT * FROM sample_60s"))
    assert (row["gpu_power_n"], row["gpu_power_min"], row["gpu_power_max"]) == (60, 0, 59)


def test_a_sample_that_comes_late_finds_its_buckets(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(700))
    store.maintain()
    store.add_sample(Sample(START + 5.5, {"gpu_power": 9_999.0}))
    assert store.history(START, START + DAY, ["gpu_power"]).series["gpu_power"].high[0] == 9_999
    store.maintain()
    for table in ("sample_10s", "sample_60s", "sample_600s"):
        assert total(store, "gpu_power_max = 9999", table) == 1


def test_a_late_sample_is_seen_by_the_next_process_too(bench: Bench) -> None:
    first = bench.open()
    bench.record(first, power, range(700))
    first.maintain()
    first.add_sample(Sample(START + 5.5, {"gpu_power": 9_999.0}))
    first.close()
    bench.open().maintain()
    assert total(bench.opened[-1], "gpu_power_max = 9999", "sample_600s") == 1


def test_metrics_that_are_absent_for_a_while_leave_a_hole(bench: Bench, store: Store) -> None:
    bench.record(store, lambda s: power(s) if not 60 <= s < 120 else {"gpu_temperature": 40.0}, range(180))
    store.maintain()
    series = store.history(START, START + DAY, ["gpu_power", "gpu_temperature"]).series
    assert series["gpu_power"].at.tolist() == [START, START + 120]
    assert series["gpu_temperature"].at.tolist() == [START + 60]


def test_retention_follows_the_settings_and_loses_no_stretch(bench: Bench) -> None:
    bench.retention = HistorySettings(
        keep_seconds_h=0.1, keep_10_seconds_d=0.25 / 24, keep_minutes_d=0.5 / 24, keep_10_minutes_d=1 / 24
    )
    store = bench.open()
    for minute in range(120):
        bench.record(store, power, range(60 * minute, 60 * minute + 60, 5))
        store.maintain()
    oldest = {
        tier.seconds: Database(store.path).execute(f"SELECT min(at_ms) FROM {tier.table}").fetchone()[0]
        for tier in TIERS
    }
    ages = {seconds: bench.now - at / 1000 for seconds, at in oldest.items()}
    assert 360 <= ages[1] <= 360 + 10
    assert 900 <= ages[10] <= 900 + 60
    assert 1800 <= ages[60] <= 1800 + 600
    assert 3600 <= ages[600] <= 3600 + 3600
    assert 3600 <= ages[3600] <= 3600 + 3600
    # A fine window that begins before the fine samples is read from the tier that reaches back.
    assert store.history(bench.now - 600, bench.now, ["gpu_power"], points=600).resolution == 10
    series = store.history(bench.now - 3000, bench.now, ["gpu_power"], points=600)
    assert series.resolution == 600
    assert np.diff(series.series["gpu_power"].at).max() == 600


def test_no_tier_is_kept_for_less_time_than_the_finer_one() -> None:
    kept = [tier.keep_ms(HistorySettings(keep_seconds_h=240, keep_10_seconds_d=7)) for tier in TIERS]
    assert kept[:2] == [240 * HOUR * 1000] * 2
    assert kept == sorted(kept)


def test_a_clock_that_jumps_ahead_for_a_moment_costs_little(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(0, 6_000, 10))
    store.maintain()
    bench.now += 365 * 10 * DAY
    store.maintain()
    for tier in TIERS:
        oldest = Database(store.path).execute(f"SELECT min(at_ms) FROM {tier.table}").fetchone()[0]
        assert oldest / 1000 - START == 3_600


def test_samples_from_a_clock_set_back_do_not_spoil_old_buckets(bench: Bench) -> None:
    bench.retention = HistorySettings(keep_seconds_h=0.01)
    store = bench.open()
    bench.record(store, power, range(700))
    store.maintain()
    before = Database(store.path).execute("SELECT * FROM sample_60s").fetchall()
    bench.now = START + 30
    store.add_sample(Sample(START + 30.5, {"gpu_power": -1.0}))
    bench.now = START + 701
    store.maintain()
    assert Database(store.path).execute("SELECT * FROM sample_60s").fetchall() == before


def test_lines_break_where_nothing_was_recorded(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(0, 60, 5))
    gap = store.history(START, START + 60, ["gpu_power"]).series["gpu_power"].gap
    assert gap == 15
    assert store.history(START, START + 60, ["gpu_energy"]).series["gpu_energy"].gap == 3


def test_history_carries_the_events_of_its_window_in_order(store: Store) -> None:
    for second in (5, 1, 90):
        store.add_event(Event(START + second, "switch", f"at {second}"))
    assert [event.title for event in store.history(START, START + 60).events] == ["at 1", "at 5"]


def test_the_recorded_span_is_that_of_the_samples(bench: Bench, store: Store) -> None:
    assert store.recorded_span() is None
    bench.record(store, power, range(7, 1300))
    store.maintain()
    assert store.recorded_span() == (START + 7, START + 1299)


def test_history_can_say_where_a_figure_came_from(bench: Bench, store: Store) -> None:
    nvml = {"gpu_power": Provenance(source="nvmlDeviceGetPowerUsage")}
    gone = {"gpu_power": Provenance(absence="NVML answers Not Supported")}
    bench.record(store, power, range(30), nvml)
    bench.record(store, lambda _: {}, range(30, 60), gone)
    bench.record(store, power, range(60, 90), dict(nvml))
    assert store.provenance(START - 1) == {}
    assert store.provenance(START + 29.5) == nvml
    assert store.provenance(START + 30) == gone
    assert store.provenance(START + 70) == nvml
    assert Database(store.path).table("provenance").count == 2


def test_provenance_outlives_the_samples_it_came_with_and_then_goes(bench: Bench) -> None:
    bench.retention = HistorySettings(keep_seconds_h=0.01, keep_10_seconds_d=0.001)
    store = bench.open()
    for second in range(0, 600, 2):  # a note that changes with every sample
        note = {"gpu_power": Provenance(absence=f"timeout {second}")}
        bench.record(store, lambda _: {}, range(second, second + 1), note)
    bench.now = START + 1200
    store.maintain()
    assert store.provenance(START + 59) == {"gpu_power": Provenance(absence="timeout 58")}
    assert Database(store.path).table("provenance").count < 60


def test_readers_do_not_wait_for_a_writer_in_the_middle_of_its_work(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(3))
    seen: list[int] = []
    with store._file.write() as db:
        db.execute("DELETE FROM sample_1s")
        reader = threading.Thread(
            target=lambda: seen.append(
                len(store.history(START, START + 9, ["gpu_power"]).series["gpu_power"])
            )
        )
        reader.start()
        reader.join(timeout=4)
    assert seen == [3]
    assert len(store.history(START, START + 9, ["gpu_power"]).series["gpu_power"]) == 0


def test_many_threads_may_read_and_write_at_once(bench: Bench, store: Store) -> None:
    bench.record(store, power, range(100))
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(20):
                store.add_event(Event(START + i, "note", f"{number}/{i}"))
                store.set_state(f"k{number}", str(i))
                assert len(store.history(START, START + 200, ["gpu_power"]).series["gpu_power"]) == 100
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.events(limit=1_000)) == 120
    assert len(store._file._idle_readers) <= 6
