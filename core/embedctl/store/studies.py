"""Studies in rows, and rows back in studies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from sqlite_utils import Database

from embedctl.records import Fingerprint, Study, StudySummary

_NEWEST_FIRST = "at DESC, id DESC"
_SUMMARY = tuple(field.name for field in fields(StudySummary))


def add(db: Database, study: Study) -> Study:
    """Store a study under a new id, whatever id it came with.

    Raises:
        ValueError: Its data holds what JSON does not know, such as NaN.
    """
    row = {
        "at": study.at,
        "kind": study.kind,
        "title": study.title,
        "state": study.state,
        "verdict": study.verdict,
        "headline": study.headline,
        "seconds": study.seconds,
        "backends": json.dumps(study.backends),
        "fingerprints": json.dumps([asdict(mark) for mark in study.fingerprints], default=str),
        "data": json.dumps(study.data, ensure_ascii=False, allow_nan=False),
    }
    study_id = db.table("study").insert(row).last_rowid
    assert study_id is not None
    return replace(study, id=study_id)


def get(db: Database, study_id: int) -> Study | None:
    """One study as it was added; None if there is no such study."""
    row = next(iter(db.table("study").rows_where("id = ?", [study_id])), None)
    return None if row is None else _study(row)


def latest(db: Database, kind: str) -> Study | None:
    """The newest study of a kind that was done; None if there is none."""
    found = db.table("study").rows_where(
        "kind = ? AND state = 'done'", [kind], order_by=_NEWEST_FIRST, limit=1
    )
    row = next(iter(found), None)
    return None if row is None else _study(row)


def summaries(db: Database, kind: str | None, limit: int) -> tuple[StudySummary, ...]:
    """Newest first; of one kind, or of all (None). Reads no study's data."""
    where, given = ("kind = ?", [kind]) if kind is not None else (None, None)
    rows = db.table("study").rows_where(
        where, given, select=", ".join(_SUMMARY), order_by=_NEWEST_FIRST, limit=limit
    )
    return tuple(StudySummary(**{**row, "backends": tuple(json.loads(row["backends"]))}) for row in rows)


def _study(row: Mapping[str, Any]) -> Study:
    return Study(
        **{
            **row,
            "backends": tuple(json.loads(row["backends"])),
            "fingerprints": tuple(Fingerprint(**mark) for mark in json.loads(row["fingerprints"])),
            "data": json.loads(row["data"]),
        }
    )
