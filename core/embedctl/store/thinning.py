"""Samples as arrays, and their reduction to a coarser resolution. Pure; no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedctl.series import Floats


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive entries of one tier for m metrics; NaN where a metric is absent.

    A raw sample has `low == mean == high` and a count of 1 or 0.
    """

    at_ms: NDArray[np.int64]
    """Shape (n,), ascending: the moment of a raw sample, else the start of the bucket."""
    low: Floats
    """Shape (n, m)."""
    mean: Floats
    """Shape (n, m). For a cumulative metric the last reading: the mean of a counter means nothing."""
    high: Floats
    """Shape (n, m)."""
    count: Floats
    """Shape (n, m): readings behind the entry."""
    provenance: Floats
    """Shape (n,): id of the provenance snapshot of the last sample; NaN for none."""

    def __len__(self) -> int:
        return len(self.at_ms)

    def rows(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Block:
        return Block(
            self.at_ms[index],
            self.low[index],
            self.mean[index],
            self.high[index],
            self.count[index],
            self.provenance[index],
        )


def thin(block: Block, resolution_ms: int, cumulative: NDArray[np.bool_]) -> Block:
    """Reduce to one entry per bucket of `resolution_ms` that holds an entry at all.

    A metric's mean is weighted by its own count of readings, so that one which is absent in part of a bucket
    is neither diluted nor invented; absent in all of it, it stays absent. Of metrics marked in `cumulative`,
    shape (m,), the last reading is taken for the mean. A flag's mean is the share of readings that had it
    set, its maximum whether any had. Thinning twice equals thinning once to the coarser of the two.
    """
    if not len(block):
        return block
    bucket = block.at_ms // resolution_ms
    starts = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    ends = np.append(starts[1:], len(block)) - 1
    low = np.fmin.reduceat(block.low, starts, axis=0)
    high = np.fmax.reduceat(block.high, starts, axis=0)
    count = np.add.reduceat(block.count, starts, axis=0)
    total = np.add.reduceat(np.nan_to_num(block.mean) * block.count, starts, axis=0)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    mean = np.clip(mean, low, high)  # rounding may carry the mean of equal readings past them
    if cumulative.any():
        read = np.where(block.count > 0, np.arange(len(block))[:, None], -1)
        last = np.maximum.reduceat(read, starts, axis=0)
        at_last = np.take_along_axis(block.mean, np.maximum(last, 0), axis=0)
        mean = np.where(cumulative & (last >= 0), at_last, mean)
    return Block(bucket[starts] * resolution_ms, low, mean, high, count, block.provenance[ends])


def overlay(base: Block, newer: Block) -> Block:
    """Both, ascending in time; where they hold the same moment, `newer` counts."""
    if not len(newer):
        return base
    kept = base.rows(~np.isin(base.at_ms, newer.at_ms))
    both = Block(
        np.concatenate([kept.at_ms, newer.at_ms]),
        np.concatenate([kept.low, newer.low]),
        np.concatenate([kept.mean, newer.mean]),
        np.concatenate([kept.high, newer.high]),
        np.concatenate([kept.count, newer.count]),
        np.concatenate([kept.provenance, newer.provenance]),
    )
    return both.rows(np.argsort(both.at_ms, kind="stable"))
