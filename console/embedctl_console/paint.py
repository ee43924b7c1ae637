"""What to send to a terminal so that it shows one screen in place of another, in few bytes. Pure.

Textual sends each widget whole that has changed. On a line of some 1,000 bytes a second that is seconds for
figures of which two digits are new: here only the cells that differ are sent, in 256 colours, and a colour is
named only where it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from rich.cells import get_character_cell_size
from rich.color import ColorSystem

if TYPE_CHECKING:
    from rich.style import Style
    from textual.strip import Strip

Cell = tuple[str, "Style | None"]
"""What stands there, and how; what a wide character leaves no room for is an empty text."""

_GAP: Final = 8
"""Cells between two differences that are sent rather than jumped over: a jump takes as many bytes."""
_PLAIN: Final = "0"
_ATTRIBUTES: Final = (
    ("bold", "1"), ("dim", "2"), ("italic", "3"), ("underline", "4"), ("blink", "5"), ("reverse", "7"),
    ("strike", "9"),
)  # fmt: skip


def cells_of(strip: Strip, width: int) -> list[Cell]:
    """A line's cells, `width` of them."""
    cells: list[Cell] = []
    for text, style, control in strip:
        if control:
            continue
        for character in text:
            size = get_character_cell_size(character)
            if size == 0 and cells:  # a mark on the character before
                cells[-1] = (cells[-1][0] + character, cells[-1][1])
            else:
                cells.append((character, style))
                cells.extend([("", style)] * (size - 1))
    return (cells + [(" ", None)] * (width - len(cells)))[:width]


def difference(
    before: Sequence[Sequence[Cell]] | None, now: Sequence[Sequence[Cell]], *, erases: bool, colours: bool
) -> str:
    """What to send to a terminal that shows `before` (None: anything), so that it shows `now`.

    Args:
        before: Lines of the same number and width as `now`.
        erases: The terminal fills what it erases with the background colour (`bce` in terminfo).
        colours: False: send none.
    """
    sent: list[str] = []
    pen = _PLAIN
    for y, line in enumerate(now):
        for start, end in _runs(before[y] if before is not None else None, line):
            rest = _blank_from(line) if erases and end == len(line) else end
            sent.append(f"\x1b[{y + 1};{start + 1}H")
            for style, cells in groupby(line[start : max(rest, start)], key=lambda cell: cell[1]):
                sent.append(_change(pen, wanted := _codes(style, colours)))
                sent.append("".join(text for text, _ in cells))
                pen = wanted
            if rest < end:
                sent.append(_change(pen, wanted := _codes(line[-1][1], colours)) + "\x1b[K")
                pen = wanted
    return "".join(sent) + _change(pen, _PLAIN)


def _runs(before: Sequence[Cell] | None, now: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """From where to where, end excluded, the lines differ; what differs close by is one run."""
    if before is None:
        yield 0, len(now)
        return
    start = end = -1
    for x, (old, new) in enumerate(zip(before, now, strict=True)):
        if old == new:
            continue
        if start >= 0 and x - end > _GAP:
            yield _whole(before, now, start, end)
            start = -1
        start = x if start < 0 else start
        end = x + 1
    if start >= 0:
        yield _whole(before, now, start, end)


def _whole(before: Sequence[Cell], now: Sequence[Cell], start: int, end: int) -> tuple[int, int]:
    """The run without half of a wide character at its ends."""
    while start > 0 and "" in (before[start][0], now[start][0]):
        start -= 1
    while end < len(now) and "" in (before[end][0], now[end][0]):
        end += 1
    return start, end


def _blank_from(line: Sequence[Cell]) -> int:
    """From where on the line is blank to its end, all in one colour; the line's length if it is not."""
    text, style = line[-1]
    x = len(line)
    if style is None or not (style.underline or style.reverse or style.strike):
        while x > 0 and line[x - 1] == (" ", style) == (text, style):
            x -= 1
    return x if len(line) - x > 3 else len(line)


@lru_cache(maxsize=4096)
def _codes(style: Style | None, colours: bool) -> str:
    """The numbers that set a style from plain: attributes, foreground, background, `|` between the three."""
    if style is None:
        return _PLAIN
    attributes = ";".join(code for name, code in _ATTRIBUTES if getattr(style, name))
    both = [
        ";".join(colour.downgrade(ColorSystem.EIGHT_BIT).get_ansi_codes(foreground=foreground))
        if colours and colour is not None
        else ""
        for colour, foreground in ((style.color, True), (style.bgcolor, False))
    ]
    return "|".join((attributes, *both)) if attributes or any(both) else _PLAIN


@lru_cache(maxsize=16384)
def _change(pen: str, wanted: str) -> str:
    """The sequence from one style to another; both as `_codes` has them."""
    if pen == wanted:
        return ""
    if wanted == _PLAIN:
        return "\x1b[0m"
    old: Sequence[str] = ("", "", "") if pen == _PLAIN else pen.split("|")
    new = wanted.split("|")
    fewer = any(a and not b for a, b in zip(old, new, strict=True))
    if reset := fewer or (old[0] != new[0] and bool(old[0])):  # nothing else takes an attribute off
        old = ("", "", "")
    changed = [b for a, b in zip(old, new, strict=True) if a != b]
    return f"\x1b[{';'.join([*(['0'] if reset else []), *changed])}m"
