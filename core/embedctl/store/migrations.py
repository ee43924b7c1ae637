"""The schema's history: functions that are only ever appended, each applied once, in one transaction.

A released migration is never edited. It names its columns itself instead of taking them from
`embedctl.metrics`, so that it makes tomorrow what it made when it was released. A new metric is one more
migration that adds `tiers.columns` of it to every tier. `SCHEMA.md` beside this module describes the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlite_utils import Database

from embedctl.store.tiers import TIERS, Tier, columns

Change = Callable[[Database], None]


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    apply: Change


MIGRATIONS: Final[list[Migration]] = []
"""In the order of application; a file's schema version is the number of those that it has seen."""


def migration(change: Change) -> Change:
    """Append a function to the schema's history."""
    MIGRATIONS.append(Migration(change.__name__, change))
    return change


def migrate(db: Database, *, application_id: int, clock: Callable[[], float]) -> None:
    """Bring a file up to date: every missing migration, its record and the version in one transaction each.

    Begins a write even when nothing is missing, so that a file that cannot be written is found out at once.
    """
    while True:
        db.execute("BEGIN IMMEDIATE")
        try:
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            missing = version < len(MIGRATIONS)
            if missing:
                _apply(db, MIGRATIONS[version], version + 1, clock())
                db.execute(f"PRAGMA application_id={application_id}")
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise
        if not missing:
            return


def _apply(db: Database, pending: Migration, version: int, at: float) -> None:
    log = db.table("migration")
    log.create({"version": int, "name": str, "applied_at": float}, pk="version", if_not_exists=True)
    pending.apply(db)
    log.insert({"version": version, "name": pending.name, "applied_at": at})
    db.execute(f"PRAGMA user_version={version}")


@migration
def samples(db: Database) -> None:
    db.table("provenance").create(
        {"id": int, "digest": str, "snapshot": str}, pk="id", not_null={"digest", "snapshot"}
    )
    db.table("provenance").create_index(["digest"], unique=True)
    db.table("tier").create(
        {"seconds": int, "done_until_ms": int, "thinned_until_ms": int},
        pk="seconds",
        not_null={"done_until_ms", "thinned_until_ms"},
    )
    for tier in TIERS[:4]:  # those of the first release
        _create_tier(db, tier)


def _create_tier(db: Database, tier: Tier) -> None:
    """The table of one resolution with the metrics of the first release."""
    backend = ["gpu_memory", "rss", "p50", "p95", "probe", "rate"]
    subjects = {
        "gpu": [
            *("memory_total", "memory_used", "memory_other", "utilization", "temperature"),
            *("power", "sm_clock", "energy", "throttled"),
        ],
        "host": [
            *("memory_total", "memory_available", "memory_free", "memory_reclaimable", "swap_used"),
            *("pressure_some", "pressure_full"),
        ],
        "native": backend,
        "ollama": backend,
    }
    keys = [f"{subject}_{figure}" for subject, figures in subjects.items() for figure in figures]
    db.table(tier.table).create(
        {
            "at_ms": int,
            "provenance_id": int,
            **{column: float for key in keys for column in columns(tier, key)},
        },
        pk="at_ms",
        foreign_keys=[("provenance_id", "provenance", "id")],
    )
    db.table(tier.table).create_index(["provenance_id"])
    db.table("tier").insert({"seconds": tier.seconds, "done_until_ms": 0, "thinned_until_ms": 0})


@migration
def events(db: Database) -> None:
    db.table("event").create(
        {"id": int, "at": float, "kind": str, "title": str, "backend": str, "severity": str, "detail": str},
        pk="id",
        not_null={"at", "kind", "title", "severity", "detail"},
    )
    db.table("event").create_index(["at"])


@migration
def runs(db: Database) -> None:
    db.table("run").create(
        {
            "id": int,
            "at": float,
            "preset": str,
            "title": str,
            "state": str,
            "seconds": float,
            "workload": str,
            "backends": str,
            "notes": str,
        },
        pk="id",
        not_null={"at", "preset", "title", "state", "seconds", "workload", "backends", "notes"},
    )
    db.table("run").create_index(["at"])
    _create_part(
        db,
        "measurement",
        {
            "backend": str,
            "shape": str,
            "batch": int,
            "requests": int,
            "errors": int,
            "latencies_ms": bytes,
            "p50_ms": float,
            "p95_ms": float,
            "p95_note": str,
            "texts_per_s": float,
            "tokens_per_s": float,
            "tokens": int,
            "peak_bytes": int,
            "peak_source": str,
        },
    )
    _create_part(
        db,
        "comparison",
        {
            "shape": str,
            "metric": str,
            "baseline": str,
            "candidate": str,
            "ratio": float,
            "ratio_low": float,
            "ratio_high": float,
            "level": float,
            "verdict": str,
        },
    )
    _create_part(
        db,
        "fingerprint",
        {
            "backend": str,
            "backend_version": str,
            "model": str,
            "revision": str,
            "dtype": str,
            "pooling": str,
            "normalized": int,
            "max_tokens": int,
            "dimension": int,
            "device": str,
            "attention": str,
            "torch": str,
            "driver": str,
            "machine": str,
            "options": str,
        },
    )


def _create_part(db: Database, table: str, part: dict[str, type]) -> None:
    db.table(table).create(
        {"run_id": int, "position": int, **part},
        pk=("run_id", "position"),
        foreign_keys=[("run_id", "run", "id")],
        not_null={"run_id", "position"},
    )


@migration
def downloads(db: Database) -> None:
    db.table("download").create(
        {
            "id": int,
            "repo": str,
            "revision": str,
            "started": float,
            "ended": float,
            "bytes": int,
            "outcome": str,
        },
        pk="id",
        not_null={"repo", "started", "ended", "outcome"},
    )


@migration
def state(db: Database) -> None:
    db.table("state").create(
        {"key": str, "value": str, "changed_at": float}, pk="key", not_null={"value", "changed_at"}
    )


@migration
def studies(db: Database) -> None:
    db.table("study").create(
        {
            "id": int,
            "at": float,
            "kind": str,
            "title": str,
            "state": str,
            "verdict": str,
            "headline": str,
            "seconds": float,
            "backends": str,
            "fingerprints": str,
            "data": str,
        },
        pk="id",
        not_null={
            *("at", "kind", "title", "state", "verdict", "headline"),
            *("seconds", "backends", "fingerprints", "data"),
        },
    )
    db.table("study").create_index(["kind", "at"])


@migration
def run_details(db: Database) -> None:
    measurements = db.table("measurement")
    measurements.add_column("kind", str, not_null_default="closed loop")
    measurements.add_column("figures", str, not_null_default="[]")
    db.table("run").add_column("seed", int, not_null_default=0)
    db.table("run").add_column("environment", str, not_null_default="{}")
    db.table("series").create(
        {"run_id": int, "position": int, "name": str, "readings": bytes},
        pk=("run_id", "position", "name"),
        foreign_keys=[("run_id", "run", "id")],
        not_null={"run_id", "position", "name", "readings"},
    )


@migration
def hours(db: Database) -> None:
    _create_tier(db, TIERS[4])  # the next roll-up fills it


LATEST: Final = len(MIGRATIONS)
