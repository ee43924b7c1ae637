"""The pieces of texts as the Playground shows them, told apart by colour and by a line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from textual.content import Content

from embedctl_console.widgets.text import failure_text

if TYPE_CHECKING:
    from embedctl.records import Piece, Tokenisation, Tokenised

Part = tuple[str, str]
"""Some text and its style."""

_COLOURS: Final = ("$series-1", "$series-2")
"""Of neighbouring pieces."""
_BETWEEN: Final = "│"
_INDENT: Final = "    "
_MOST, _LEAST = 2_400, 40
"""Pieces that are shown of all texts together, and at least of each that has them."""
_FOR_TEXT: Final = 20
"""Cells that must be left beside the counts for the text itself to be shown there."""


def tokens_text(texts: Sequence[str], tokens: Tokenisation, width: int) -> Content:
    """Every text's pieces, counted, with a mark where the model stops to read."""
    if tokens.absence is not None:
        return failure_text(tokens.absence.what, tokens.absence.why, tokens.absence.remedy)
    most = max(_LEAST, _MOST // max(1, len(texts)))
    blocks = [
        Content.assemble(*_head(number, text, one, width), *_wrapped(_parts(one, most), width))
        for number, (text, one) in enumerate(zip(texts, tokens.texts, strict=True), 1)
    ]
    return Content("\n").join(blocks)


def _head(number: int, text: str, one: Tokenised, width: int) -> list[Part]:
    total, unknown = len(one.pieces), sum(piece.unknown for piece in one.pieces)
    words = [f"{total:,} token{'s' if total != 1 else ''}"]
    if one.cut is not None:
        lost = f"characters {one.cut[0] + 1:,}–{one.cut[1]:,} lost"
        words = [f"{one.read:,} of {total:,} tokens read", lost]
    if unknown:
        words.append(f"{unknown} unknown")
    counted = " · ".join(words)
    head: list[Part] = [
        (f"{number:>3} ", "bold"),
        (counted, "$text-warning" if one.cut is not None else "$text-muted"),
    ]
    room = width - len(counted) - 6
    if room >= _FOR_TEXT:
        head.append((f"  {Content(text).truncate(room, ellipsis=True).plain}", "bold"))
    return head


def _wrapped(parts: Iterable[Part], width: int) -> Iterator[Part]:
    """Pieces with lines between them, on lines of their own that break between two of them."""
    room = 0
    for text, style in parts:
        cells = cell_len(text) + 1
        if cells > room:
            yield f"\n{_INDENT}", ""
            room = width - len(_INDENT)
        yield text, style
        yield _BETWEEN, "$text-muted"
        room -= cells


def _parts(one: Tokenised, most: int) -> Iterator[Part]:
    lost = range(*one.lost) if one.lost is not None else range(0)
    before = -1
    for place in _shown(len(one.pieces), lost, most):
        if place > before + 1:
            yield f"… {place - before - 1:,} more …", "italic $text-muted"
        if lost and place == lost.start:
            yield f" CUT: {len(lost):,} not read ", "bold reverse $text-warning"
        yield _piece(one.pieces[place], place, lost=place in lost)
        before = place


def _piece(piece: Piece, place: int, *, lost: bool) -> Part:
    text = piece.text.replace("\n", "↵").replace("\t", "⇥")
    if lost:
        return text, "strike $text-muted"
    if piece.unknown:
        return text, "bold underline $text-error"
    return text, "italic $text-muted" if piece.added else _COLOURS[place % 2]


def _shown(total: int, lost: range, most: int) -> Sequence[int]:
    """Places of the pieces that are shown of a long text: its begin, around its cuts, its end."""
    if total <= most:
        return range(total)
    around = most // 8
    wanted = {*range(most // 2), *range(total - around, total)}
    if lost:
        for cut in (lost.start, lost.stop):
            wanted |= set(range(max(0, cut - around), min(total, cut + around)))
    return sorted(wanted)
