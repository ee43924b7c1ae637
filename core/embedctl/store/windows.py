"""Samples read back: which tier serves a window, and the window as arrays.

Every function takes a database inside a read (or write) transaction, so that what it reads belongs to one
moment. Times named `_ms` are Unix milliseconds, and both ends of a range belong to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from sqlite_utils import Database

from embedctl.errors import UsageError
from embedctl.metrics import METRICS
from embedctl.records import Provenance
from embedctl.series import Floats, Series
from embedctl.store.thinning import Block, overlay, thin
from embedctl.store.tiers import PARTS, RAW, TIERS, Tier, suited

_ABSENT: Final = "9e999"
"""Infinity, which is never stored, in place of NULL: a stream of plain floats is read a fifth faster."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a tier has come; kept in the file beside the samples."""

    done_until_ms: int
    """Everything before this moment has been rolled up into the tier. Raw samples: without meaning."""
    thinned_until_ms: int
    """The tier's entries before this moment were removed; coarser tiers still have them."""


def progress(db: Database) -> dict[int, Progress]:
    """By the tier's seconds."""
    rows = db.execute("SELECT seconds, done_until_ms, thinned_until_ms FROM tier")
    return {seconds: Progress(done, thinned) for seconds, done, thinned in rows}


def known(metrics: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics asked for, all by default.

    Raises:
        UsageError: One of them does not exist.
    """
    if metrics is None:
        return tuple(METRICS)
    unknown = [key for key in metrics if key not in METRICS]
    if unknown:
        raise UsageError(
            f"There is no metric {unknown[0]!r}",
            why="metrics are: " + ", ".join(METRICS),
            remedy="name one of these",
        )
    return tuple(dict.fromkeys(metrics))


def stored(
    db: Database, tier: Tier, metrics: Sequence[str], since_ms: int, until_ms: int, *, counted: bool = True
) -> Block:
    """What a tier's table holds of a range.

    Without `counted` the counts are 1 or 0: enough for drawing, and a quarter less to read.
    """
    parts = PARTS if counted else PARTS[:-1]
    keys = metrics if tier is RAW else [f"{key}_{part}" for part in parts for key in metrics]
    cells = ", ".join(f"ifnull({key}, {_ABSENT})" for key in ("provenance_id", *keys))
    rows = db.execute(
        f"SELECT at_ms, {cells} FROM {tier.table} "  # noqa: S608 - names of ours
        "WHERE at_ms BETWEEN ? AND ? ORDER BY at_ms",
        (since_ms, until_ms),
    )
    table = np.fromiter(chain.from_iterable(rows), np.float64).reshape(-1, 2 + len(keys))
    table[np.isinf(table)] = np.nan
    at_ms, provenance, figures = table[:, 0].astype(np.int64), table[:, 1], table[:, 2:]
    if tier is RAW:
        return Block(at_ms, figures, figures, figures, _present(figures), provenance)
    low, mean, high, *count = np.split(figures, len(parts), axis=1)
    return Block(at_ms, low, mean, high, np.nan_to_num(count[0]) if counted else _present(mean), provenance)


def _present(figures: Floats) -> Floats:
    return (~np.isnan(figures)).astype(np.float64)


def load(
    db: Database, tier: Tier, metrics: Sequence[str], since_ms: int, until_ms: int, *, counted: bool = True
) -> Block:
    """A range at a tier's resolution, up to the newest sample: what is not rolled up yet is, in passing."""
    block = stored(db, tier, metrics, tier.bucket(since_ms), until_ms, counted=counted)
    if tier.finer is None:
        return block
    open_from = max(tier.bucket(progress(db)[tier.seconds].done_until_ms), tier.bucket(since_ms))
    if open_from > until_ms:
        return block
    end_of_last_bucket = tier.bucket(until_ms) + tier.ms - 1
    finer = load(db, tier.finer, metrics, open_from, end_of_last_bucket)
    return overlay(block, thin(finer, tier.ms, cumulative(metrics)))


def cumulative(metrics: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the metrics are counters, shape (m,)."""
    return np.array([METRICS[key].cumulative for key in metrics], dtype=np.bool_)


def choose_tier(db: Database, since: float, until: float, points: int) -> Tier:
    """The tier for a window: coarse enough for `points`, and reaching back as far as there are samples."""
    tier = suited(until - since, points)
    recorded = span_ms(db)
    if recorded is None:
        return tier
    needed_from = max(int(since * 1000), recorded[0])
    reached = progress(db)
    for candidate in TIERS[TIERS.index(tier) :]:
        if reached[candidate.seconds].thinned_until_ms <= needed_from:
            return candidate
    return TIERS[-1]


def series(db: Database, tier: Tier, metrics: Sequence[str], since: float, until: float) -> dict[str, Series]:
    """The window as one series per metric; a metric without a reading in it has an empty one."""
    block = load(db, tier, metrics, int(since * 1000), int(until * 1000), counted=False)
    whole = block.at_ms / 1000
    usual = _gap(whole, tier)
    result = {}
    for index, key in enumerate(metrics):
        low, mean, high = (part[:, index] for part in (block.low, block.mean, block.high))
        present = ~np.isnan(mean)
        if present.all():
            result[key] = Series(key, whole, low, mean, high, gap=usual)
        else:
            at = whole[present]
            result[key] = Series(key, at, low[present], mean[present], high[present], gap=_gap(at, tier))
    return result


def _gap(at: Floats, tier: Tier) -> float:
    """Three times the usual distance: the sampler may be slower than the tier, a probe slower still."""
    usual = float(np.median(np.diff(at))) if len(at) > 1 else 0.0
    return 3 * max(float(tier.seconds), usual)


def span_ms(db: Database) -> tuple[int, int] | None:
    """Moments of the oldest and the newest sample at any resolution; None without a sample."""
    first = last = None
    width = 0
    for tier in reversed(TIERS):
        # Two queries in one: SQLite takes an end straight from the tree only when it is asked for alone.
        low, high = db.execute(
            f"SELECT (SELECT min(at_ms) FROM {tier.table}), (SELECT max(at_ms) FROM {tier.table})"  # noqa: S608
        ).fetchone()
        if low is None:
            continue
        # A bucket starts before its first sample: where a finer tier still has it, that one knows better.
        if first is None or low < first + width:
            first = low
        width = tier.ms
        last = high if last is None else max(last, high)
    return None if first is None or last is None else (first, last)


def provenance(db: Database, at_ms: int) -> Mapping[str, Provenance]:
    """Where each figure came from, or why it was absent, in the last sample at or before a moment."""
    newest = max(
        (
            row
            for tier in TIERS
            if (
                row := db.execute(
                    f"SELECT at_ms, provenance_id FROM {tier.table} "  # noqa: S608
                    "WHERE at_ms <= ? ORDER BY at_ms DESC LIMIT 1",
                    (at_ms,),
                ).fetchone()
            )
        ),
        key=lambda row: row[0],
        default=None,
    )
    if newest is None or newest[1] is None:
        return {}
    text = db.execute("SELECT snapshot FROM provenance WHERE id = ?", (newest[1],)).fetchone()[0]
    return {key: Provenance(**note) for key, note in json.loads(text).items()}
