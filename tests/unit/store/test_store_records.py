"""Events, runs, studies, downloads and state come back as they went in."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from embedctl.errors import UsageError
from embedctl.headlines import summarize
from embedctl.records import (
    Comparison,
    Event,
    Figure,
    Fingerprint,
    Interval,
    Measurement,
    Run,
    Severity,
    Study,
)
from embedctl.store import Store
from embedctl.store.database import HistoryFile
from embedctl.store.migrations import MIGRATIONS
from tests.support.store_bench import START, Bench


def measurement(backend: str, latencies: tuple[float, ...]) -> Measurement:
    return Measurement(
        backend=backend, shape="one text", batch=1, requests=len(latencies) + 1, errors=1,
        latencies_ms=latencies, p50_ms=12.5, p95_ms=None, p95_note="n too small", texts_per_s=80.0,
        tokens_per_s=None, tokens=4_321, peak_bytes=2_500_000_000, peak_source="NVML per process",
    )  # fmt: skip


def make_run(at: float = START, **changes: object) -> Run:
    rng = random.Random(3)
    whole = {
        "id": 0,
        "at": at,
        "preset": "quick",
        "seconds": 41.5,
        "backends": ("native", "ollama"),
        "measurements": (
            measurement("native", tuple(rng.uniform(5, 20) for _ in range(400))),
            measurement("ollama", ()),
        ),
        "comparisons": (
            Comparison("one text", "latency", "ollama", "native", Interval(3.1, 2.9, 3.3), "faster"),
            Comparison(
                "batch of 32", "throughput", "ollama", "native", Interval(1.0, None, None), "undecided"
            ),
        ),
        "fingerprints": (
            Fingerprint(
                "native",
                "6.0",
                "BAAI/bge-m3",
                "5617a9f",
                "float16",
                "cls",
                True,
                8192,
                1024,
                "cuda:0",
                "sdpa",
                "2.11",
                None,
                "GB10",
                {"batch_size": 32, "deep": {"x": [1, None]}},
            ),
        ),
        "workload": "xquad-200 sha256:ab12",
        "notes": ("the GPU was throttled",),
        "title": "before the upgrade",
    }
    return Run(**{**whole, **changes})  # type: ignore[arg-type]


def test_a_run_comes_back_as_it_went_in(store: Store) -> None:
    stored = store.add_run(make_run())
    assert stored.id > 0
    assert store.run(stored.id) == stored
    assert make_run(id=stored.id) == stored


def test_a_run_keeps_its_figures_raw_series_and_surroundings(store: Store) -> None:
    row = replace(
        measurement("native", (1.0, 2.5)),
        kind="open loop",
        figures=(Figure("p95_ms", 2.5, "ms", 2.0, None, "n too small"), Figure("stalls", None, note="ü")),
        series={"intended_s": (0.0, 0.1 + 0.2), "sent_s": ()},
    )
    run = make_run(measurements=(measurement("ollama", (9.0,)), row), seed=11, environment={"load": [0.5]})
    stored = store.add_run(run)
    assert store.run(stored.id) == replace(run, id=stored.id)


def test_a_run_grows_in_place_and_can_be_removed(store: Store) -> None:
    other = store.add_run(make_run(START - 5))
    begun = store.add_run(make_run(measurements=(), comparisons=(), state="unfinished"))
    row = replace(measurement("native", (1.0,)), series={"sent_s": (1.0,)})
    for rows in ((row,), (row, row)):
        store.put_run(replace(begun, measurements=rows))
        assert store.run(begun.id) == replace(begun, measurements=rows)
    store.remove_run(begun.id)
    assert store.run(begun.id) is None
    with pytest.raises(UsageError, match="no longer in the history"):
        store.put_run(begun)
    assert store.run(other.id) == other
    assert [summary.id for summary in store.runs()] == [other.id]


def test_a_run_of_before_figures_were_kept_is_still_readable(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables as the first release made them, filled as it filled them, and then migrated."""
    names = [step.name for step in MIGRATIONS]
    with monkeypatch.context() as patch:
        patch.setattr("embedctl.store.migrations.MIGRATIONS", MIGRATIONS[: names.index("run_details")])
        patch.setattr("embedctl.store.database.LATEST", names.index("run_details"))
        old = HistoryFile(bench.path, clock=lambda: START)
    latencies = np.array([5.0, 7.25], dtype="<f8").tobytes()
    with old.write() as db:
        db.table("run").insert(
            {
                "id": 4, "at": START, "preset": "quick", "title": "", "state": "done", "seconds": 40.0,
                "workload": "w", "backends": '["native"]', "notes": "[]",
            }
        )  # fmt: skip
        db.table("measurement").insert(
            {
                "run_id": 4, "position": 0, "backend": "native", "shape": "one text", "batch": 1,
                "requests": 2,
                "errors": 0, "latencies_ms": latencies, "p50_ms": 5.0, "p95_ms": 7.25, "p95_note": "",
                "texts_per_s": 100.0, "tokens_per_s": None, "tokens": None, "peak_bytes": None,
                "peak_source": "x",
            }
        )  # fmt: skip
    old.close()
    run = bench.open().run(4)
    assert run is not None
    assert (run.seed, run.environment, run.state) == (0, {}, "done")
    assert run.measurements[0].latencies_ms == (5.0, 7.25)
    assert (run.measurements[0].kind, run.measurements[0].figures) == ("closed loop", ())


def test_a_run_that_does_not_exist_is_none(store: Store) -> None:
    assert store.run(7) is None


def test_runs_are_listed_newest_first_with_their_headline(store: Store) -> None:
    ids = [store.add_run(make_run(START + second)).id for second in (10, 30, 20)]
    listed = store.runs()
    assert [summary.id for summary in listed] == [ids[1], ids[2], ids[0]]
    assert listed[0].headline == "one text: native 3.1× as fast as ollama (2.9–3.3), faster"
    assert len(store.runs(limit=2)) == 2


def test_a_run_without_comparison_is_summed_up_by_its_first_row() -> None:
    assert summarize(make_run(comparisons=())).headline == "one text: native p50 12.5 ms"
    assert summarize(make_run(comparisons=(), measurements=())).headline == "nothing measured"


def make_study(at: float = START, **changes: object) -> Study:
    whole = {
        "id": 0,
        "at": at,
        "kind": "check",
        "title": "",
        "verdict": "safe with limits",
        "headline": "texts over 2,047 tokens are cut by ollama",
        "backends": ("native", "ollama"),
        "fingerprints": make_run().fingerprints,
        "seconds": 38.5,
        "data": {"cosines": [0.99, 1.0], "worst": [{"text": "größer", "cosine": None}]},
    }
    return Study(**{**whole, **changes})  # type: ignore[arg-type]


def test_a_study_comes_back_as_it_went_in(store: Store) -> None:
    stored = store.add_study(make_study(id=99))
    assert store.study(stored.id) == stored == make_study(id=stored.id)
    assert store.study(stored.id + 1) is None


def test_studies_are_listed_by_kind_newest_first(store: Store) -> None:
    early, late = (store.add_study(make_study(START + second)).id for second in (10, 30))
    other = store.add_study(make_study(START + 20, kind="quality")).id
    broken = store.add_study(make_study(START + 40, state="cancelled")).id
    assert [study.id for study in store.studies()] == [broken, late, other, early]
    assert [study.id for study in store.studies("check", limit=2)] == [broken, late]
    assert store.studies("check")[1].headline == "texts over 2,047 tokens are cut by ollama"
    latest = store.latest_study("check")
    assert latest is not None
    assert latest.id == late
    assert store.latest_study("coexist") is None


def test_a_study_without_a_number_for_a_figure_says_none_and_not_nan(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.add_study(make_study(data={"cosine": float("nan")}))
    assert store.studies() == ()


def test_an_event_comes_back_with_its_id(store: Store) -> None:
    event = Event(
        START, "switch", "native → ollama", "ollama", Severity.WARNING, {"seconds": 3.5, "why": None}
    )
    stored = store.add_event(event)
    assert stored.id is not None
    assert store.events() == (stored,)
    assert (stored.at, stored.title, stored.detail) == (event.at, event.title, event.detail)


def test_events_are_chosen_by_time_and_kind_newest_first(store: Store) -> None:
    for second, kind in enumerate(["load", "switch", "error", "switch", "it's"]):
        store.add_event(Event(START + second, kind, str(second)))

    def titles(*args: object, **kwargs: object) -> str:
        return "".join(event.title for event in store.events(*args, **kwargs))  # type: ignore[arg-type]

    assert titles() == "43210"
    assert titles(START + 1, START + 3) == "321"
    assert titles(kinds=["switch", "it's"]) == "431"
    assert titles(kinds=[]) == ""
    assert titles(limit=2) == "43"


def test_downloads_are_listed_newest_first(store: Store) -> None:
    store.add_download("BAAI/bge-m3", None, START, START + 5, None, "cancelled")
    store.add_download("BAAI/bge-m3", "5617a9f", START + 6, START + 90, 2_300_000_000, "done")
    newest, oldest = store.downloads()
    assert (newest.outcome, newest.bytes, newest.ended - newest.started) == ("done", 2_300_000_000, 84)
    assert (oldest.outcome, oldest.bytes, oldest.revision) == ("cancelled", None, None)


def test_the_active_choice_is_remembered_over_a_restart(bench: Bench) -> None:
    first = bench.open()
    assert first.get_state("active") is None
    first.set_state("active", "native")
    first.set_state("active", "ollama")
    first.close()
    assert bench.open().get_state("active") == "ollama"
