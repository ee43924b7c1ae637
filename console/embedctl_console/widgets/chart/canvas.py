"""A grid of characters, each with a role that the widget turns into a colour. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from enum import IntEnum
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SPACE: Final = ord(" ")


class Role(IntEnum):
    """What a character is part of. `SERIES + i` belongs to the series with index i."""

    TEXT = 0
    TITLE = 1
    FAINT = 2
    AXIS = 3
    GRID = 4
    CURSOR = 5
    MARK = 6
    ALARM = 7
    LIVE = 8
    PAUSED = 9
    SPAN = 10
    SERIES = 100


class Canvas:
    """A frame of `height` lines of `width` cells; what is written outside is cut off."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.glyphs: NDArray[np.uint32] = np.full((height, width), _SPACE, dtype=np.uint32)
        self.roles: NDArray[np.int16] = np.zeros((height, width), dtype=np.int16)

    def put(self, x: int, y: int, text: str, role: int) -> None:
        """Write `text` from (x, y) to the right. A character that is not one cell wide becomes `?`."""
        if not 0 <= y < self.height:
            return
        begin = max(0, x)
        shown = text[begin - x : max(0, self.width - x)]
        if shown:
            codes = _codes(shown)
            self.glyphs[y, begin : begin + len(codes)] = codes
            self.roles[y, begin : begin + len(codes)] = role

    def fill(self, x: int, y: int, width: int, height: int, glyph: str, role: int) -> None:
        """Fill a rectangle inside the frame with one character."""
        self.glyphs[y : y + height, x : x + width] = ord(glyph)
        self.roles[y : y + height, x : x + width] = role

    def runs(self, y: int) -> Iterator[tuple[str, int]]:
        """Line `y` as stretches of one role; spaces join the stretch before them, leading ones the first."""
        glyphs = self.glyphs[y]
        inked = glyphs != _SPACE
        source = np.maximum.accumulate(np.where(inked, np.arange(self.width), inked.argmax()))
        roles = self.roles[y][source]
        text = glyphs.astype("<u4").tobytes().decode("utf-32-le")
        bounds = [0, *(np.flatnonzero(np.diff(roles)) + 1).tolist(), self.width]
        for begin, end in pairwise(bounds):
            yield text[begin:end], int(roles[begin])

    def changes(self, before: Canvas) -> Iterator[tuple[int, int, int]]:
        """Where this frame differs from one of the same size: line, first cell, cell after the last."""
        differs = (self.glyphs != before.glyphs) | (self.roles != before.roles)
        for y in np.flatnonzero(differs.any(axis=1)).tolist():
            cells = np.flatnonzero(differs[y])
            yield y, int(cells[0]), int(cells[-1]) + 1

    def text(self) -> str:
        """The characters alone, one line per row, without trailing spaces."""
        return "\n".join("".join(map(chr, row)).rstrip() for row in self.glyphs)


@lru_cache(maxsize=512)
def _codes(text: str) -> list[int]:
    if text.isascii() and text.isprintable():
        return list(text.encode())
    return [ord(char) if _is_narrow(char) else ord("?") for char in text]


def _is_narrow(char: str) -> bool:
    wide = unicodedata.east_asian_width(char) in "WF"
    return not wide and not unicodedata.category(char).startswith(("M", "C"))
