"""Samples written: one row per sample, rolled up into coarser tiers and removed when they are old.

Roll-up works from marks kept in the file (table `tier`): a bucket that is over is computed from the finer
tier's rows and put in whole, in the transaction that moves the mark. So a kill at any moment loses and
doubles nothing, and doing it again changes nothing. A sample that comes late moves the marks back.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Final

import numpy as np
from sqlite_utils import Database

from embedctl.errors import StoreBusyError
from embedctl.metrics import METRICS
from embedctl.records import Provenance, Sample
from embedctl.settings import HistorySettings
from embedctl.store import faults
from embedctl.store.database import HistoryFile
from embedctl.store.recorder import RecorderLock
from embedctl.store.thinning import Block, thin
from embedctl.store.tiers import COARSER, RAW, TIERS, Tier, columns
from embedctl.store.windows import cumulative, progress, stored

_BUCKETS_AT_ONCE: Final = 360
"""Buckets per roll-up transaction: an hour of seconds, so that catching up never holds the writer long."""

_REMOVED_AT_ONCE_MS: Final = 3_600_000
"""How much time one pass removes from a tier at most. A pass stays short, and a clock that jumps years ahead
for a moment costs an hour of each tier and not the history."""

_INSERT_SAMPLE: Final = (
    f"INSERT OR REPLACE INTO {RAW.table} (at_ms, provenance_id, {', '.join(METRICS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * (2 + len(METRICS)))})"
)


class Recording:
    """The writing side of the samples. Safe to use from any thread."""

    def __init__(self, file: HistoryFile, retention: HistorySettings, clock: Callable[[], float]) -> None:
        self._file = file
        self._retention = retention
        self._clock = clock
        self.lock = RecorderLock(file.path)
        self._one_at_a_time = threading.Lock()
        self._done_until_ms = 0
        """The furthest mark of any tier: a sample before it comes late."""
        self._last_provenance: tuple[Mapping[str, Provenance], int] | None = None

    def add(self, sample: Sample) -> None:
        """Commit one sample to disk. A second one of the same millisecond replaces the first.

        Raises:
            StoreBusyError: Another process records to this file.
            StoreError: It could not be written.
        """
        with self._one_at_a_time:
            self._add(sample)

    def _add(self, sample: Sample) -> None:
        if not self._claim():
            raise StoreBusyError(
                "Samples are not recorded by this process",
                why=f"another embedctl (PID {self.lock.holder() or 'unknown'}) records to {self._file.path}",
                remedy="nothing is lost: its history is shown here; recording goes on here when it ends",
            )
        at_ms = round(sample.at * 1000)
        figures = [
            value if (value := sample.values.get(key)) is not None and math.isfinite(value) else None
            for key in METRICS
        ]
        with self._file.write() as db:
            snapshot = self._provenance_id(db, sample.provenance)
            db.execute(_INSERT_SAMPLE, (at_ms, snapshot, *figures))
            if late := at_ms < self._done_until_ms:
                db.execute("UPDATE tier SET done_until_ms = min(done_until_ms, ?)", (at_ms,))
        if late:
            self._done_until_ms = at_ms
        if snapshot is not None:
            self._last_provenance = (sample.provenance, snapshot)

    def maintain(self) -> None:
        """Roll up the buckets that are over and remove what is older than its tier keeps.

        Does nothing while another process records: that one maintains.
        """
        with self._one_at_a_time:
            if not self._claim():
                return
            for tier in COARSER:
                while self._roll_up(tier):
                    pass
            removed = [self._remove_old(tier) for tier in TIERS]
            if any(removed):
                self._remove_unused_provenance()

    def _claim(self) -> bool:
        if self.lock.held:
            return True
        try:
            claimed = self.lock.claim()
        except OSError as error:
            raise faults.read_only(
                self._file.path, f"the lock file beside it cannot be used: {error.strerror}"
            ) from error
        if claimed:
            try:
                with self._file.read() as db:  # the one before us may have moved the marks
                    self._done_until_ms = max(mark.done_until_ms for mark in progress(db).values())
            except BaseException:
                self.lock.release()
                raise
        return claimed

    def _provenance_id(self, db: Database, notes: Mapping[str, Provenance]) -> int | None:
        if not notes:
            return None
        if self._last_provenance is not None and (
            notes is self._last_provenance[0] or notes == self._last_provenance[0]
        ):
            return self._last_provenance[1]
        snapshot = json.dumps({key: asdict(notes[key]) for key in sorted(notes)})
        digest = hashlib.sha256(snapshot.encode()).hexdigest()
        found = db.execute("SELECT id FROM provenance WHERE digest = ?", (digest,)).fetchone()
        if found is not None:
            return int(found[0])
        added = db.execute("INSERT INTO provenance (digest, snapshot) VALUES (?, ?)", (digest, snapshot))
        return added.lastrowid

    def _roll_up(self, tier: Tier) -> bool:
        """Roll up one stretch of finished buckets; false when none is left."""
        assert tier.finer is not None
        over_before = tier.bucket(int(self._clock() * 1000))
        metrics = tuple(METRICS)
        with self._file.write() as db:
            marks = progress(db)
            first = db.execute(
                f"SELECT min(at_ms) FROM {tier.finer.table} WHERE at_ms BETWEEN ? AND ?",  # noqa: S608
                (tier.bucket(marks[tier.seconds].done_until_ms), over_before - 1),
            ).fetchone()[0]
            if first is None:
                return False
            start = tier.bucket(first)
            stop = min(over_before, start + _BUCKETS_AT_ONCE * tier.ms)
            rolled = thin(stored(db, tier.finer, metrics, start, stop - 1), tier.ms, cumulative(metrics))
            # Where the finer rows were removed, a late sample makes only part of its bucket: it may fill a
            # hole (the clock was set back) but not replace what was computed from all of them.
            whole = rolled.at_ms >= marks[tier.finer.seconds].thinned_until_ms
            insert_rolled(db, tier, rolled.rows(whole))
            insert_rolled(db, tier, rolled.rows(~whole), replace=False)
            db.execute("UPDATE tier SET done_until_ms = ? WHERE seconds = ?", (stop, tier.seconds))
        self._done_until_ms = max(self._done_until_ms, stop)
        return True

    def _remove_old(self, tier: Tier) -> bool:
        now_ms = int(self._clock() * 1000)
        coarser = next((other for other in COARSER if other.finer is tier), None)
        before = now_ms - tier.keep_ms(self._retention)
        with self._file.read() as db:
            oldest = db.execute(f"SELECT min(at_ms) FROM {tier.table}").fetchone()[0]  # noqa: S608
        if oldest is None or oldest >= before:
            return False
        with self._file.write() as db:
            marks = progress(db)
            if coarser is not None:  # only what the next tier has already
                before = min(before, marks[coarser.seconds].done_until_ms)
            before = min(before, oldest + _REMOVED_AT_ONCE_MS)
            before = (coarser or tier).bucket(before)  # whole buckets of the next tier
            removed = db.execute(f"DELETE FROM {tier.table} WHERE at_ms < ?", (before,)).rowcount  # noqa: S608
            if removed and before > marks[tier.seconds].thinned_until_ms:
                db.execute("UPDATE tier SET thinned_until_ms = ? WHERE seconds = ?", (before, tier.seconds))
        return bool(removed)

    def _remove_unused_provenance(self) -> None:
        unused = " AND ".join(
            f"NOT EXISTS (SELECT 1 FROM {tier.table} WHERE provenance_id = provenance.id)"  # noqa: S608
            for tier in TIERS
        )
        with self._file.write() as db:
            db.execute(f"DELETE FROM provenance WHERE {unused}")  # noqa: S608
        self._last_provenance = None  # it may have been among them


def insert_rolled(db: Database, tier: Tier, block: Block, *, replace: bool = True) -> None:
    """Put entries of a coarser tier into its table, shape (n, all metrics)."""
    names = [column for key in METRICS for column in columns(tier, key)]
    figures = np.stack([block.low, block.mean, block.high, block.count], axis=2).reshape(
        len(block), len(names)
    )
    db.conn.executemany(
        f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO {tier.table} "  # noqa: S608
        f"(at_ms, provenance_id, {', '.join(names)}) VALUES ({', '.join('?' * (2 + len(names)))})",
        (  # SQLite stores NaN as NULL
            (at_ms, snapshot, *row)
            for at_ms, snapshot, row in zip(
                block.at_ms.tolist(), block.provenance.tolist(), figures.tolist(), strict=True
            )
        ),
    )
