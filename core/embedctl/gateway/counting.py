"""How many tokens texts have, counted in pieces: only as far as it takes to know that they are too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PIECE: Final = 65_536
"""Characters of a long text that are counted at a time."""
_WORD: Final = 4096
"""So far back a space is looked for."""
_AT_ONCE: Final = 1024 * 1024
"""Characters for all cores together."""
_PER_CUT: Final = 64
"""Tokens that a cut within a word may make too many. They are left out: nothing is refused for a cut."""


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> int:
    """The tokens of the texts; where there are more than `most`, a part of them that is more, too.

    A text of 30 MiB at once takes half a minute and gigabytes. It is cut between words, so that its pieces
    have the tokens of the whole.
    """
    count = tokenizer.num_special_tokens_to_add(False) * len(texts)
    for group in _groups(piece for text in texts for piece in _pieces(text)):
        encodings = tokenizer.encode_batch_fast([piece for piece, _ in group], add_special_tokens=False)
        for encoding, (_, spare) in zip(encodings, group, strict=True):
            count += max(0, len(encoding) - spare)
        if count > most:
            break
    return count


def _pieces(text: str) -> Iterator[tuple[str, int]]:
    """Pieces of a text, each with the tokens that it may have too many."""
    start, spare = 0, 0
    while len(text) - start > _PIECE:
        end = start + _PIECE
        # The space goes with the word behind it, as most vocabularies have it.
        space = max(text.rfind(" ", end - _WORD, end), text.rfind("\n", end - _WORD, end))
        cut = space if space > start else end
        yield text[start:cut], spare
        start, spare = cut, 0 if space > start else _PER_CUT
    yield text[start:], spare


def _groups(pieces: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Pieces, in order, in groups of about `_AT_ONCE` characters."""
    group: list[tuple[str, int]] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece[0])
        if size >= _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
