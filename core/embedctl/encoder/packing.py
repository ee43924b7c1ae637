"""Many texts in one row: where each begins, which positions its tokens have, how attention is tiled.

Pure arithmetic on token counts; the reason for all of it is that padding costs what tokens cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Packed:
    """The tokens of one batch, text after text."""

    ids: Ints
    """Shape (tokens,)."""
    positions: Ints
    """Shape (tokens,): rows of the position table."""
    bounds: Ints
    """Shape (texts + 1,): text `i` is `ids[bounds[i]:bounds[i + 1]]` ("cu_seq_lens")."""

    @property
    def tokens(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> int:
        return len(self.bounds) - 1

    @property
    def lengths(self) -> Ints:
        return np.diff(self.bounds)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring texts of one length, which attention can take as one rectangular batch."""

    first: int
    """Row of the first token."""
    texts: int
    length: int


def pack(texts: Sequence[Ints], *, first_position: int, skipped_id: int | None) -> Packed:
    """Lay `texts` (token ids, at least one each) into one row, in the order given.

    Args:
        first_position: Position of each text's first token.
        skipped_id: This token takes no position: it stands at `first_position - 1`, as transformers'
            RoBERTa places padding tokens, also those that a text spells out.
    """
    lengths = np.fromiter((len(text) for text in texts), np.int32, len(texts))
    bounds = np.zeros(len(texts) + 1, np.int32)
    np.cumsum(lengths, out=bounds[1:])
    ids = texts[0] if len(texts) == 1 else np.concatenate(texts)
    positions = np.arange(first_position, first_position + len(ids), dtype=np.int32)
    if len(texts) > 1:
        positions -= np.repeat(bounds[:-1], lengths)
    if skipped_id is not None and (ids == skipped_id).any():
        for begin, end in pairwise(bounds.tolist()):
            real = ids[begin:end] != skipped_id
            positions[begin:end] = np.where(real, np.cumsum(real) + first_position - 1, first_position - 1)
    return Packed(ids, positions, bounds)


def runs(lengths: Ints) -> list[Run]:
    """Split neighbours into runs of equal length."""
    cuts = np.flatnonzero(np.diff(lengths)) + 1
    edges = [0, *cuts.tolist(), len(lengths)]
    rows = np.concatenate(([0], np.cumsum(lengths)))
    return [
        Run(int(rows[begin]), end - begin, int(lengths[begin]))
        for begin, end in pairwise(edges)
        if end > begin
    ]


def attention_tiles(lengths: Sequence[int], block: int) -> Ints:
    """Which rows each attention tile computes, and which keys they look at.

    A text longer than `block` is cut into tiles of its own; shorter neighbours share a tile as long as they
    fit in whole, so that 19-token queries do not take a 64-row tile each.

    Returns:
        Shape (n, 4): first row, row after the last, first key, key after the last. A tile of shared texts has
        0 as its last column: its keys are its rows, and each row has its own text's range only.
    """
    tiles: list[tuple[int, int, int, int]] = []
    row = shared_from = 0
    for length in lengths:
        end = row + length
        if end - shared_from > block:
            if row > shared_from:
                tiles.append((shared_from, row, shared_from, 0))
            shared_from = row
        if length > block:
            tiles.extend((first, min(first + block, end), row, end) for first in range(row, end, block))
            shared_from = end
        row = end
    if row > shared_from:
        tiles.append((shared_from, row, shared_from, 0))
    return np.array(tiles, np.int32).reshape(-1, 4)


def most_tiles(tokens: int, block: int) -> int:
    """More tiles than any mix of texts of so many tokens can need.

    The worst mix alternates texts of `block + 1` tokens (a full tile and one of a single row) with texts of
    one token (a shared tile that nobody shares): three tiles in `block + 2` rows.
    """
    return 3 * (tokens // block) + 3
