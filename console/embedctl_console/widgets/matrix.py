"""A matrix of cosines as a heat map: the number in every cell, and its size as a shade behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

CELL: Final = 6
"""Cells of the terminal per number: a shade or a blank, four characters, a mark or a blank."""
_LEVELS: Final = 8
_SHADES: Final = {"braille": "  ░░▒▒▓█", "block": "  ░░▒▒▓█", "ascii": "  ..::+#"}
"""By charset, a sign per level, where there are no colours to mix."""
_LABEL: Final = 22


class CosineMatrix(ScrollView, can_focus=True):
    """Scrolls below its column numbers and beside its row labels. The greatest other of a row has a mark."""

    DEFAULT_CSS = "CosineMatrix { height: 1fr; background: transparent; }"

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._labels: tuple[str, ...] = ()
        self._values: Matrix = np.empty((0, 0))
        self._nearest: dict[int, int] = {}
        self._charset = "braille"

    def show(self, labels: Sequence[str], values: Matrix, charset: str = "braille") -> None:
        """Replace what is shown.

        Args:
            labels: What the rows, and the columns, are of.
            values: Shape (n, n); NaN where there is none.
        """
        self._labels, self._values, self._charset = tuple(labels), values, charset
        self._nearest = nearest_others(values)
        self._measure()
        self.refresh()

    def on_resize(self) -> None:
        self._measure()

    def _measure(self) -> None:
        count = len(self._labels)
        self.virtual_size = Size(self._label_width + CELL * count, 1 + count)

    @property
    def _label_width(self) -> int:
        return min(_LABEL, max(8, self.size.width // 3))

    def render_line(self, y: int) -> Strip:
        width, labels = self.size.width, self._label_width
        x, scrolled = (int(offset) for offset in self.scroll_offset)
        row = y - 1 + scrolled
        plain = self.rich_style
        if y == 0:
            head, cells = "", [Segment(f"{number:>5} ", plain) for number in range(1, len(self._labels) + 1)]
        elif row < len(self._labels):
            head, cells = f"{row + 1:>3} {self._labels[row]}", self._cells(row, plain)
        else:
            return Strip.blank(width, plain)
        numbers = Strip(cells).crop(x, x + max(0, width - labels))
        label = Content(head).truncate(labels - 1, ellipsis=True, pad=True).plain
        line = Strip.join([Strip([Segment(f"{label} ", plain)]), numbers])
        return line.adjust_cell_length(width, plain)

    def _cells(self, row: int, plain: Style) -> list[Segment]:
        colours = self._colours()
        cells = []
        for column, value in enumerate(self._values[row].tolist()):
            mark = "•" if self._nearest.get(row) == column else " "
            if np.isnan(value):
                cells.append(Segment(f"  n/a{mark}", plain))
                continue
            level = level_of(value)
            if colours is None:
                shade = _SHADES[self._charset][level]
                cells.append(Segment(f"{shade}{number_text(value)}{mark}", plain))
            else:
                cells.append(Segment(f" {number_text(value)}{mark}", colours[level]))
        return cells

    def _colours(self) -> tuple[Style, ...] | None:
        """A style per level; None where colours cannot be mixed, or there are none."""
        if self.app.no_color or self.app.current_theme.ansi:
            return None
        variables = self.app.theme_variables
        low, high = (Color.parse(variables[name]) for name in ("surface", "primary"))
        grounds = [low.blend(high, level / (_LEVELS - 1)) for level in range(_LEVELS)]
        return tuple(
            Style(color=ground.get_contrast_text(1.0).rich_color, bgcolor=ground.rich_color)
            for ground in grounds
        )


def level_of(value: float) -> int:
    """How dark a cosine is shown: 0 for 0 and below, seven for 1, the same step for the same difference."""
    return max(0, min(_LEVELS - 1, int(value * _LEVELS)))


def number_text(value: float) -> str:
    """A cosine in four characters: `0.83`, `-.12`, `1.00`."""
    text = f"{value:z.2f}"
    return text if len(text) <= 4 else text.replace("-0.", "-.").replace("-1.00", "-1.0")


def nearest_others(values: Matrix) -> dict[int, int]:
    """Per row with any, the column of the greatest value beside the diagonal; the first of equal ones."""
    found = {}
    for row, cells in enumerate(values):
        others = np.where(np.arange(len(cells)) == row, np.nan, cells)
        if np.isfinite(others).any():
            found[row] = int(np.nanargmax(others))
    return found
