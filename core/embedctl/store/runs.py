"""Runs in rows, and rows back in runs: the run, its measurements and their raw data, its comparisons."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from sqlite_utils import Database

from embedctl.headlines import summarize
from embedctl.records import Comparison, Figure, Fingerprint, Interval, Measurement, Run, RunSummary

_PARTS: Final = ("measurement", "comparison", "fingerprint", "series")


def add(db: Database, run: Run) -> Run:
    """Store a run under a new id, whatever id it came with."""
    run_id = db.table("run").insert(_run_row(run)).last_rowid
    assert run_id is not None
    _add_all_parts(db, run_id, run)
    return replace(run, id=run_id)


def put(db: Database, run: Run) -> bool:
    """Replace the stored run of the same id by this one, raw data and all; false if there is none."""
    if not remove(db, run.id):
        return False
    db.table("run").insert({"id": run.id, **_run_row(run)})
    _add_all_parts(db, run.id, run)
    return True


def remove(db: Database, run_id: int) -> bool:
    """Delete a run with everything in it; false if there is none."""
    for table in _PARTS:
        db.table(table).delete_where("run_id = ?", [run_id])
    found = db.table("run").count_where("id = ?", [run_id])
    db.table("run").delete_where("id = ?", [run_id])
    return bool(found)


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "at": run.at,
        "preset": run.preset,
        "title": run.title,
        "state": run.state,
        "seconds": run.seconds,
        "workload": run.workload,
        "backends": json.dumps(run.backends),
        "notes": json.dumps(run.notes),
        "seed": run.seed,
        "environment": json.dumps(dict(run.environment), default=str),
    }


def _add_all_parts(db: Database, run_id: int, run: Run) -> None:
    _add_parts(db, "measurement", run_id, map(_measurement_row, run.measurements))
    _add_parts(db, "comparison", run_id, map(_comparison_row, run.comparisons))
    _add_parts(db, "fingerprint", run_id, map(_fingerprint_row, run.fingerprints))
    db.table("series").insert_all(
        {"run_id": run_id, "position": position, "name": name, "readings": _packed(readings)}
        for position, measurement in enumerate(run.measurements)
        for name, readings in measurement.series.items()
    )


def get(db: Database, run_id: int) -> Run | None:
    """One run with its raw latencies; None if there is no such run."""
    row = next(iter(db.table("run").rows_where("id = ?", [run_id])), None)
    return None if row is None else _run(db, row)


def summaries(db: Database, limit: int) -> tuple[RunSummary, ...]:
    """Newest first."""
    rows = list(db.table("run").rows_where(order_by="at DESC, id DESC", limit=limit))
    return tuple(summarize(_run(db, row, raw=False)) for row in rows)


def _add_parts(db: Database, table: str, run_id: int, parts: Iterable[dict[str, Any]]) -> None:
    for position, part in enumerate(parts):
        db.table(table).insert({"run_id": run_id, "position": position, **part})


def _parts(db: Database, table: str, run_id: int) -> Iterable[dict[str, Any]]:
    for row in db.table(table).rows_where("run_id = ?", [run_id], order_by="position"):
        del row["run_id"], row["position"]
        yield row


def _run(db: Database, row: Mapping[str, Any], *, raw: bool = True) -> Run:
    run_id = row["id"]
    series: dict[int, dict[str, tuple[float, ...]]] = {}
    for kept in db.table("series").rows_where("run_id = ?", [run_id]) if raw else ():
        series.setdefault(kept["position"], {})[kept["name"]] = _unpacked(kept["readings"])
    return Run(
        id=run_id,
        at=row["at"],
        preset=row["preset"],
        seconds=row["seconds"],
        backends=tuple(json.loads(row["backends"])),
        measurements=tuple(
            _measurement(row, series.get(position, {}))
            for position, row in enumerate(_parts(db, "measurement", run_id))
        ),
        comparisons=tuple(map(_comparison, _parts(db, "comparison", run_id))),
        fingerprints=tuple(map(_fingerprint, _parts(db, "fingerprint", run_id))),
        workload=row["workload"],
        state=row["state"],
        notes=tuple(json.loads(row["notes"])),
        title=row["title"],
        seed=row["seed"],
        environment=json.loads(row["environment"]),
    )


def _measurement_row(measurement: Measurement) -> dict[str, Any]:
    row = {
        **asdict(measurement),
        "latencies_ms": _packed(measurement.latencies_ms),
        "figures": json.dumps([asdict(figure) for figure in measurement.figures]),
    }
    del row["series"]
    return row


def _measurement(row: dict[str, Any], series: Mapping[str, tuple[float, ...]]) -> Measurement:
    figures = tuple(Figure(**figure) for figure in json.loads(row["figures"]))
    latencies = _unpacked(row["latencies_ms"])
    return Measurement(**{**row, "latencies_ms": latencies, "figures": figures, "series": series})


def _packed(readings: Sequence[float]) -> bytes:
    """float64, little-endian: eight bytes a reading, and exact."""
    return np.array(readings, dtype="<f8").tobytes()


def _unpacked(readings: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(readings, "<f8").tolist())


def _comparison_row(comparison: Comparison) -> dict[str, Any]:
    ratio = comparison.ratio
    row = {**asdict(comparison), "ratio": ratio.estimate, "ratio_low": ratio.low, "ratio_high": ratio.high}
    return {**row, "level": ratio.level}


def _comparison(row: dict[str, Any]) -> Comparison:
    interval = Interval(row.pop("ratio"), row.pop("ratio_low"), row.pop("ratio_high"), row.pop("level"))
    return Comparison(**row, ratio=interval)


def _fingerprint_row(fingerprint: Fingerprint) -> dict[str, Any]:
    return {**asdict(fingerprint), "options": json.dumps(dict(fingerprint.options), default=str)}


def _fingerprint(row: dict[str, Any]) -> Fingerprint:
    return Fingerprint(
        **{**row, "normalized": bool(row["normalized"]), "options": json.loads(row["options"])}
    )
