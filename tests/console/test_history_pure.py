"""Marked spans, their figures, lost ends and exports, without a screen."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path

import numpy as np
import pytest

from embedctl.metrics import Unit
from embedctl.records import Event
from embedctl.series import History, Series
from embedctl_console.screens.history_about import about_event
from embedctl_console.screens.history_ends import LostEnd, lost_end, suspects
from embedctl_console.screens.history_export import export_path, write_json
from embedctl_console.screens.history_series import used_memory
from embedctl_console.screens.history_spans import (
    ASKED,
    MarkedSpans,
    change,
    figures_of,
    figures_text,
)
from tests.support import canned
from tests.support.canned import NOW
from tests.support.fake_engine import FakeEngine

# Spans


def test_a_third_span_replaces_the_second() -> None:
    marked = MarkedSpans()
    marked.mark(20)
    assert [(s.name, s.until) for s in marked.spans] == [("A", None)] and marked.whole == ()
    marked.mark(10)
    marked.add(30, 40)
    marked.mark(50)
    assert [(s.name, s.since, s.until) for s in marked.spans] == [
        ("A", 10, 20),
        ("B", 30, 40),
        ("B", 50, None),
    ]
    marked.mark(60)
    assert [(s.name, s.since, s.until) for s in marked.whole] == [("A", 10, 20), ("B", 50, 60)]
    assert marked.clear() and not marked.clear()


def test_a_span_of_no_length_stays_open() -> None:
    marked = MarkedSpans()
    marked.mark(10)
    marked.mark(10)
    assert marked.whole == () and len(marked.spans) == 1


def read(since: float, until: float) -> History:
    return canned.history(since, until, metrics=ASKED, points=3_600)


def test_one_span_is_given_in_full() -> None:
    since, until = NOW - 600, NOW - 300
    text = figures_text([figures_of("A", read(since, until), since, until)], 100, UTC).plain
    rows = {line[:14].strip(): line[14:].split() for line in text.splitlines()}
    assert "A  2026-03-04 11:50:00 – 11:55:00  5 min 00 s, entries of 1 s" in text
    assert text.splitlines()[2].split() == ["min", "mean", "p50", "p95", "p99", "max"]
    values = [float(value) for value in rows["native p50"][::2]]
    low, mean, p50, p95, p99, high = values
    assert low < p50 < p95 <= p99 <= high and low < mean < high
    assert rows["energy"][:2] == ["5.5", "kJ"], "18.4 W for 299 s, by the counter"


def test_energy_is_added_up_from_the_power_without_a_counter() -> None:
    history = read(NOW - 600, NOW - 300)
    without = {**history.series, "gpu_energy": Series.empty("gpu_energy")}
    by_power = figures_of("", History(0, 0, 1.0, without, ()), NOW - 600, NOW - 300)
    assert by_power.energy == pytest.approx(18.4 * 299, rel=0.2)
    assert by_power.energy_source == "its power, added up"
    neither = {**without, "gpu_power": Series.empty("gpu_power")}
    assert figures_of("", History(0, 0, 1.0, neither, ()), NOW - 600, NOW - 300).energy is None


@pytest.mark.parametrize(("width", "parts"), [(80, ["mean", "p95"]), (140, ["mean", "p95", "max"])])
def test_two_spans_stand_side_by_side_with_the_change(width: int, parts: list[str]) -> None:
    spans = [
        figures_of(name, read(since, since + 120), since, since + 120)
        for name, since in (("A", NOW - 600), ("B", NOW - 300))
    ]
    lines = figures_text(spans, width, UTC).plain.splitlines()
    assert [word for word in lines[3].split() if word in ("mean", "p95", "max")] == parts
    assert lines[3].count("change") == len(parts)
    assert max(map(len, lines[3:-2])) <= width


def test_a_span_without_samples_says_so() -> None:
    empty = figures_of("A", read(NOW + 100, NOW + 200), NOW + 100, NOW + 200)
    assert "Nothing was recorded" in figures_text([empty], 80, UTC).plain


@pytest.mark.parametrize(
    ("unit", "before", "after", "text"),
    [
        ("ms", 100.0, 112.0, "+12 %"),
        ("ms", 100.0, 98.5, "-1.5 %"),
        ("ms", 100.0, 100.01, "="),
        ("percent", 30.0, 42.5, "+12.5"),
        ("celsius", 47.0, 47.01, "="),
        ("bytes", 0.0, 5.0, "n/a"),
        ("bytes", None, 5.0, "n/a"),
    ],
)
def test_change_in_words(unit: Unit, before: float | None, after: float | None, text: str) -> None:
    assert change(unit, before, after) == text


# Lost ends


def start(at: float, pid: int | None = None, boot: str | None = "a") -> Event:
    return Event(at, "start", "embedctl started", detail={} if pid is None else {"pid": pid, "boot": boot})


def stop(at: float, pid: int | None = None, boot: str | None = "a") -> Event:
    return Event(at, "stop", "embedctl stopped", detail={} if pid is None else {"pid": pid, "boot": boot})


def test_a_start_without_a_stop_is_a_suspect_once_another_start_follows() -> None:
    assert suspects([start(10, 1)]) == ()
    (found,) = suspects([start(100, 2), start(10, 1)])
    assert (found.started.at, found.resumed.at) == (10, 100)
    assert suspects([start(10, 1), stop(50, 1), start(100, 2)]) == ()


def test_two_processes_at_once_are_told_apart() -> None:
    events = [start(10, 1), start(20, 2), stop(30, 2), stop(40, 1), start(50, 3)]
    assert suspects(events) == ()
    assert suspects([start(10, 1), start(20, 2), stop(30, 2), start(50, 3)])[0].started.detail["pid"] == 1


def test_a_number_used_again_after_a_boot_is_another_process() -> None:
    (found,) = suspects([start(10, 1, "a"), start(100, 1, "b"), stop(200, 1, "b")])
    assert found.started.at == 10


def test_events_without_a_process_are_paired_in_order() -> None:
    assert suspects([start(10), stop(20), start(30)]) == ()
    assert [one.started.at for one in suspects([start(10), start(30), start(50)])] == [30, 10]


def test_what_a_suspect_comes_to() -> None:
    (killed,) = suspects([start(10, 1), start(100, 2)])
    assert lost_end(killed, 60.0) == LostEnd(60.0, 100, False)
    assert lost_end(killed, 99.0) is None, "another process went on recording"
    assert lost_end(killed, None) is None and lost_end(killed, 5.0) is None
    (frozen,) = suspects([start(10, 1, "a"), start(100, 2, "b")])
    found = lost_end(frozen, 99.0)
    assert found is not None and found.what == "the machine stopped here"
    (old,) = suspects([start(10), start(100)])
    found = lost_end(old, 60.0)
    assert found is not None and found.restarted is None and found.what == "the recording broke off"


# Exports and the rest


def test_json_holds_what_is_shown_and_no_more(tmp_path: Path) -> None:
    since, until = NOW - 1_200, NOW - 600
    shown = canned.history(since - 60, until + 60, metrics=("gpu_power", "native_p50"))
    path = export_path(tmp_path / "new", since, until, UTC, "json")
    assert path.name == "history-20260304-114000-to-20260304-115000.json"
    points = write_json(path, shown, since, until)
    document = json.loads(path.read_text())
    assert (document["schema_version"], document["kind"]) == (1, "history")
    data = document["data"]
    assert sum(len(one["at"]) for one in data["series"].values()) == points
    power = data["series"]["gpu_power"]
    assert power["unit"] == "watt" and min(power["at"]) >= since and max(power["at"]) < until
    assert [event["kind"] for event in data["events"]] == ["run", "switch"]


def test_a_run_leads_to_its_report_and_other_events_to_before_and_after() -> None:
    engine = FakeEngine()
    run = Event(NOW - 900, "run", "run 7: quick", detail={"run": 7})
    text = about_event(engine, run, 80, UTC, cursor=NOW - 800).plain
    assert "the last event before the cursor, 1 min 40 s earlier" in text
    assert ("run", 7) in engine.calls and "native" in text
    engine.calls.clear()
    about_event(engine, Event(NOW - 900, "switch", "a → b", detail={"seconds": 10.0}), 80, UTC)
    windows = [call[1:] for call in engine.calls if call[0] == "history"]
    assert windows == [(NOW - 970, NOW - 910), (NOW - 900, NOW - 840)], "the switch itself is in neither"


def test_the_overview_takes_the_hosts_memory_where_there_is_no_gpu() -> None:
    at = np.arange(3.0)
    figures = {"host_memory_total": [100.0] * 3, "host_memory_available": [70.0, 60.0, 50.0]}
    series = {key: Series(key, at, *[np.array(values)] * 3, gap=3.0) for key, values in figures.items()}
    history = History(0, 3, 1.0, {**series, "gpu_memory_used": Series.empty("gpu_memory_used")}, ())
    assert used_memory(history).high.tolist() == [30.0, 40.0, 50.0]
