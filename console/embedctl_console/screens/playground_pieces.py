"""The pieces of texts as the Playground shows them, told apart by colour and by a line. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from textual.content import Content

from embedctl_console.widgets.text import failure_text

if TYPE_CHECKING:
    from embedctl.records import Piece, Tokenisation, Tokenised

_COLOURS: Final = ("$series-1", "$series-2")
"""Of neighbouring pieces."""
_BETWEEN: Final = "│"
_INDENT: Final = "    "
_FROM_START, _AROUND_CUT, _AT_END = 160, 40, 20
"""Pieces of a long text that are shown."""
_FOR_TEXT: Final = 20
"""Cells that must be left beside the counts for the text itself to be shown there."""


def tokens_text(texts: Sequence[str], tokens: Tokenisation, width: int) -> Content:
    """Every text's pieces, counted, with a mark where the model stops to read."""
    if tokens.absence is not None:
        return failure_text(tokens.absence.what, tokens.absence.why, tokens.absence.remedy)
    lines: list[Content] = []
    for number, (text, one) in enumerate(zip(texts, tokens.texts, strict=True), 1):
        lines += [_head(number, text, one, width), *_piece_lines(one, width)]
    return Content("\n").join(lines)


def _head(number: int, text: str, one: Tokenised, width: int) -> Content:
    total, unknown = len(one.pieces), sum(piece.unknown for piece in one.pieces)
    words = [f"{total:,} token{'s' if total != 1 else ''}"]
    if one.cut is not None:
        words = [
            f"{one.read:,} of {total:,} tokens read",
            f"characters {one.cut[0] + 1:,}–{one.cut[1]:,} lost",
        ]
    if unknown:
        words.append(f"{unknown} unknown")
    style = "$text-warning" if one.cut is not None else "$text-muted"
    said = Content.assemble((f"{number:>3} ", "bold"), (" · ".join(words), style))
    room = width - said.cell_length - 2
    if room < _FOR_TEXT:
        return said
    return Content.assemble(said, "  ", Content.assemble((text, "bold")).truncate(room, ellipsis=True))


def _piece_lines(one: Tokenised, width: int) -> Iterator[Content]:
    """Pieces with lines between them, wrapped between two of them."""
    line, empty = Content(_INDENT), True
    for part in _parts(one):
        if not empty and line.cell_length + part.cell_length + 1 > width:
            yield line
            line = Content(_INDENT)
        line, empty = Content.assemble(line, part, (_BETWEEN, "$text-muted")), False
    yield line


def _parts(one: Tokenised) -> Iterator[Content]:
    lost = range(*one.lost) if one.lost is not None else range(0)
    before = -1
    for place in _shown(len(one.pieces), lost):
        if place > before + 1:
            yield Content.assemble((f"… {place - before - 1:,} more …", "italic $text-muted"))
        if lost and place == lost.start:
            yield Content.assemble((f" CUT: {len(lost):,} not read ", "bold reverse $text-warning"))
        yield _piece(one.pieces[place], place, lost=place in lost)
        before = place


def _piece(piece: Piece, place: int, *, lost: bool) -> Content:
    text = piece.text.replace("\n", "↵").replace("\t", "⇥")
    if lost:
        return Content.assemble((text, "strike $text-muted"))
    if piece.unknown:
        return Content.assemble((text, "bold underline $text-error"))
    return Content.assemble((text, "italic $text-muted" if piece.added else _COLOURS[place % 2]))


def _shown(total: int, lost: range) -> Sequence[int]:
    """Places of the pieces that are shown of a long text: its begin, around the cut, its end."""
    if total <= _FROM_START + 2 * _AROUND_CUT + _AT_END:
        return range(total)
    wanted = {*range(_FROM_START), *range(total - _AT_END, total)}
    if lost:
        for cut in (lost.start, lost.stop):
            wanted |= set(range(max(0, cut - _AROUND_CUT), min(total, cut + _AROUND_CUT)))
    return sorted(wanted)
