"""Lines as dots, and dots as characters. Pure numpy; no idea of widgets, colours or units.

A cell holds a few dots (2 × 4 in braille). Each series is drawn into dots of its own; then the dots of all
series in a cell are put together, so that no line erases another where they cross. A cell has one colour:
that of the series with the most dots in it. Lines with equally many take turns from column to column, so that
lines in the same cells show in alternating colours; of areas the earlier one has the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embedctl.series import Floats

Dots = NDArray[np.bool_]
"""Shape (rows of dots, columns of dots); row 0 is at the top."""
Rows = NDArray[np.intp]

NOBODY: Final = -1
_DOTS_IN: Final = np.array([bits.bit_count() for bits in range(256)], dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Charset:
    """How dots become characters."""

    name: str
    across: int
    """Dots per cell, left to right."""
    down: int
    """Dots per cell, top to bottom."""
    weights: tuple[tuple[int, ...], ...]
    """The bit of each dot in a cell's pattern, by row and column."""
    glyphs: tuple[str, ...]
    """The character of each pattern."""


BRAILLE: Final = Charset(
    "braille",
    2,
    4,
    ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)),
    tuple(" " if bits == 0 else chr(0x2800 + bits) for bits in range(256)),
)
BLOCK: Final = Charset("block", 2, 2, ((1, 2), (4, 8)), tuple(" ▘▝▀▖▌▞▛▗▚▐▜▄▙▟█"))
ASCII: Final = Charset("ascii", 1, 1, ((1,),), (" ", "*"))
CHARSETS: Final = {charset.name: charset for charset in (BRAILLE, BLOCK, ASCII)}
_CODES: Final = {
    name: np.array([ord(glyph) for glyph in charset.glyphs], dtype=np.uint32)
    for name, charset in CHARSETS.items()
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What is in each cell; both arrays have shape (cell rows, cell columns)."""

    glyphs: NDArray[np.uint32]
    """Code points; a space where there is no dot."""
    owners: NDArray[np.intp]
    """Index of the series whose colour the cell has, or `NOBODY`."""


def dot_rows(values: Floats, bottom: float, top: float, count: int, *, log: bool = False) -> Rows:
    """The dot row of each value, 0 (at `top`) to count - 1 (at `bottom`); values outside go to the border.

    The value of NaN entries is arbitrary but valid.
    """
    if log:
        low, high = np.log10(bottom), np.log10(top)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (np.log10(np.maximum(values, bottom)) - low) / (high - low)
    else:
        share = (values - bottom) / (top - bottom)
    rows: Floats = np.rint((1.0 - np.where(np.isnan(share), 0.0, share)) * (count - 1))
    return np.minimum(np.maximum(rows, 0), count - 1).astype(np.intp)


def trace(low: Floats, high: Floats, bottom: float, top: float, rows: int, *, log: bool = False) -> Dots:
    """The dots of a line that extends from `low[c]` to `high[c]` in dot column c; NaN leaves it empty."""
    there = ~np.isnan(low)
    first = dot_rows(high, bottom, top, rows, log=log)
    last = dot_rows(low, bottom, top, rows, log=log)
    # Neighbours that share just the row where they meet would look twice as thick there; the right one
    # gives it up and stays connected corner to corner.
    both = there[1:] & there[:-1]
    rising = both & (first[:-1] == last[1:]) & (last[1:] > first[1:])
    falling = both & (last[:-1] == first[1:]) & (last[1:] > first[1:])
    last[1:] -= rising
    first[1:] += falling
    row = np.arange(rows)[:, None]
    return (row >= first) & (row <= last) & there


def fill(low: Floats, high: Floats, bottom: float, top: float, rows: int) -> Dots:
    """The dots of an area between two levels per dot column; an area thinner than a dot shows none."""
    there = ~(np.isnan(low) | np.isnan(high))
    first = dot_rows(high, bottom, top, rows)
    last = dot_rows(low, bottom, top, rows)
    row = np.arange(rows)[:, None]
    return (row >= first) & (row < np.where(low <= bottom, rows, last)) & there & (high > low)


def textured(dots: Dots, texture: str) -> Dots:
    """An area thinned out: every second dot of `dense`, one in eight of `sparse`, all of any other.

    The pattern stands still while areas move, so that only their borders are drawn anew.
    """
    if texture == "dense":
        step: Dots = np.indices(dots.shape).sum(axis=0) % 2 == 0
        return dots & step
    if texture == "sparse":
        thin: Dots = np.zeros_like(dots)
        thin[::4, ::4] = thin[2::4, 2::4] = True
        return dots & thin
    return dots


def merge(layers: Sequence[Dots], charset: Charset, signs: str = "*", *, turns: bool = True) -> Picture:
    """All series in one picture; each layer's shape is a multiple of the charset's cell.

    `turns` says whether series with equally many dots in a cell take turns. With one dot per cell (ASCII) the
    character is the owner's own of `signs`.
    """
    shape = layers[0].shape
    height, width = shape[0] // charset.down, shape[1] // charset.across
    cells = np.stack(layers).reshape(len(layers), height, charset.down, width, charset.across)
    weights = np.array(charset.weights, dtype=np.uint8)[:, None, :]
    patterns = np.sum(cells * weights, axis=(2, 4), dtype=np.uint8)
    counts = _DOTS_IN[patterns]
    tied = counts == counts.max(axis=0)
    turn = np.arange(width) % tied.sum(axis=0) if turns else 0
    owners = (tied & (tied.cumsum(axis=0) == turn + 1)).argmax(axis=0)
    together = np.bitwise_or.reduce(patterns, axis=0)
    owners[together == 0] = NOBODY
    if charset.across * charset.down == 1:
        codes = np.array([ord(sign) for sign in signs], dtype=np.uint32)
        glyphs = np.where(owners == NOBODY, np.uint32(ord(" ")), codes[owners % len(codes)])
    else:
        glyphs = _CODES[charset.name][together]
    return Picture(glyphs, owners)
