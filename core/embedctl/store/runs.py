"""Runs in rows, and rows back in runs: the run, its measurements, comparisons and fingerprints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from sqlite_utils import Database

from embedctl.headlines import summarize
from embedctl.records import Comparison, Fingerprint, Interval, Measurement, Run, RunSummary


def add(db: Database, run: Run) -> Run:
    """Store a run under a new id, whatever id it came with."""
    row = {
        "at": run.at,
        "preset": run.preset,
        "title": run.title,
        "state": run.state,
        "seconds": run.seconds,
        "workload": run.workload,
        "backends": json.dumps(run.backends),
        "notes": json.dumps(run.notes),
    }
    run_id = db.table("run").insert(row).last_rowid
    assert run_id is not None
    _add_parts(db, "measurement", run_id, map(_measurement_row, run.measurements))
    _add_parts(db, "comparison", run_id, map(_comparison_row, run.comparisons))
    _add_parts(db, "fingerprint", run_id, map(_fingerprint_row, run.fingerprints))
    return replace(run, id=run_id)


def get(db: Database, run_id: int) -> Run | None:
    """One run with its raw latencies; None if there is no such run."""
    row = next(iter(db.table("run").rows_where("id = ?", [run_id])), None)
    return None if row is None else _run(db, row)


def summaries(db: Database, limit: int) -> tuple[RunSummary, ...]:
    """Newest first."""
    rows = list(db.table("run").rows_where(order_by="at DESC, id DESC", limit=limit))
    return tuple(summarize(_run(db, row)) for row in rows)


def _add_parts(db: Database, table: str, run_id: int, parts: Iterable[dict[str, Any]]) -> None:
    for position, part in enumerate(parts):
        db.table(table).insert({"run_id": run_id, "position": position, **part})


def _parts(db: Database, table: str, run_id: int) -> Iterable[dict[str, Any]]:
    for row in db.table(table).rows_where("run_id = ?", [run_id], order_by="position"):
        del row["run_id"], row["position"]
        yield row


def _run(db: Database, row: Mapping[str, Any]) -> Run:
    run_id = row["id"]
    return Run(
        id=run_id,
        at=row["at"],
        preset=row["preset"],
        seconds=row["seconds"],
        backends=tuple(json.loads(row["backends"])),
        measurements=tuple(map(_measurement, _parts(db, "measurement", run_id))),
        comparisons=tuple(map(_comparison, _parts(db, "comparison", run_id))),
        fingerprints=tuple(map(_fingerprint, _parts(db, "fingerprint", run_id))),
        workload=row["workload"],
        state=row["state"],
        notes=tuple(json.loads(row["notes"])),
        title=row["title"],
    )


def _measurement_row(measurement: Measurement) -> dict[str, Any]:
    # float64, little-endian: eight bytes a request, and exact.
    latencies = np.array(measurement.latencies_ms, dtype="<f8").tobytes()
    return {**asdict(measurement), "latencies_ms": latencies}


def _measurement(row: dict[str, Any]) -> Measurement:
    return Measurement(**{**row, "latencies_ms": tuple(np.frombuffer(row["latencies_ms"], "<f8").tolist())})


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
