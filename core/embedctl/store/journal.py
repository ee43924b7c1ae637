"""Events, downloads and remembered state: small records in rows, and rows back in records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from sqlite_utils import Database

from embedctl.records import Download, Event, Severity


def add_event(db: Database, event: Event) -> Event:
    row = {
        "at": event.at,
        "kind": event.kind,
        "title": event.title,
        "backend": event.backend,
        "severity": event.severity.value,
        "detail": json.dumps(dict(event.detail), default=str),
    }
    return replace(event, id=db.table("event").insert(row).last_rowid)


def events(
    db: Database, since: float | None, until: float | None, kinds: Sequence[str] | None, limit: int
) -> tuple[Event, ...]:
    """Newest first; both ends belong to the window."""
    conditions, values = ["1"], []
    if since is not None:
        conditions.append("at >= :since")
    if until is not None:
        conditions.append("at <= :until")
    if kinds is not None:
        conditions.append("kind IN (SELECT value FROM json_each(:kinds))")
        values = list(kinds)
    rows = db.table("event").rows_where(
        " AND ".join(conditions),
        {"since": since, "until": until, "kinds": json.dumps(values)},
        order_by="at DESC, id DESC",
        limit=limit,
    )
    return tuple(
        Event(
            at=row["at"],
            kind=row["kind"],
            title=row["title"],
            backend=row["backend"],
            severity=Severity(row["severity"]),
            detail=json.loads(row["detail"]),
            id=row["id"],
        )
        for row in rows
    )


def add_download(db: Database, download: Download) -> Download:
    row = asdict(download)
    del row["id"]
    return replace(download, id=db.table("download").insert(row).last_rowid)


def downloads(db: Database, limit: int) -> tuple[Download, ...]:
    """Newest first."""
    rows = db.table("download").rows_where(order_by="ended DESC, id DESC", limit=limit)
    return tuple(Download(**row) for row in rows)


def state(db: Database, key: str) -> str | None:
    row = db.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def set_state(db: Database, key: str, value: str, at: float) -> None:
    db.table("state").upsert({"key": key, "value": value, "changed_at": at})
