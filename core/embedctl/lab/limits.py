"""How much of a text does a backend read? Found out by texts that differ in their last word alone.

Where two such texts get the same vector, the backend has cut them before that word. Bisecting the length
finds the last word that is read, to the token, in about a dozen lengths; what the backend says of itself is
tried first, so that a truthful one costs two.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from embedctl.errors import BackendError
from embedctl.lab.tokens import TokenCounter
from embedctl.records import BackendName, EmbedResult, LengthLimit

if TYPE_CHECKING:
    from numpy.typing import NDArray

EmbedOne = Callable[[str], EmbedResult]
"""Embeds one text in a request of its own."""

SHORTEST: Final = 8
"""Tokens of the shortest text that is tried."""
LONGEST: Final = 8192
"""Tokens up to which a backend is tried that claims less, or nothing."""
PROBE_LENGTHS: Final = (
    *(8, 16, 32, 64, 128, 256, 384, 511, 512, 513, 514),
    *(1024, 1025, 1536, 1537, 2047, 2048, 2049, 4096, 8192),
)
"""Tokens. Engines are known to break at these lengths; each is embedded where the backend reads so far."""
_SURE: Final = 1e-3
"""A component that changes by more than this was changed by the text; less may be the backend's own noise."""
_OVER: Final = 40
"""Tokens by which the text that must be reported as cut is too long."""
_WORDS: Final = (
    *("time", "year", "people", "way", "day", "man", "world", "life", "hand", "part", "child", "place"),
    *("work", "week", "case", "point", "company", "number", "group", "problem", "fact", "water", "money"),
    *("month", "book", "story", "eye", "job", "word", "business", "side", "kind", "head", "house", "power"),
    *("city", "door", "street", "music", "road", "river", "table", "stone", "tree", "light", "night"),
)
"""Common English words, each one token to most tokenizers."""


class Ruler:
    """Texts of an exact number of tokens; each is the beginning of every longer one.

    Args:
        count: The model's tokenizer. None, or one to which no common English word is one token: lengths are
            words then.
    """

    def __init__(self, count: TokenCounter | None) -> None:
        words = _single_tokens(count) if count is not None else []
        exact = count is not None and _add_up(count, words)
        self.unit: Literal["tokens", "words"] = "tokens" if exact else "words"
        self._special = count([""]) if exact and count is not None else 0
        self._words = words if exact else list(_WORDS)
        self._sequence = _sequence(self._words[2:], LONGEST + _OVER)
        self._ends = self._words[:2]

    def text(self, length: int) -> str:
        """A text of `length` tokens, special tokens included."""
        return " ".join(self._beginning(length - self._special))

    def ending(self, length: int, which: Literal[0, 1]) -> str:
        """`text(length)` with another last word; the two differ from each other."""
        return " ".join((*self._beginning(length - self._special - 1), self._ends[which]))

    def _beginning(self, words: int) -> list[str]:
        if words > len(self._sequence):
            self._sequence = _sequence(self._words[2:], words)
        return self._sequence[: max(0, words)]


def _sequence(words: Sequence[str], length: int) -> list[str]:
    return random.Random(0).choices(words, k=length)  # a text like any other, no secret


def _single_tokens(count: TokenCounter) -> list[str]:
    special = count([""])
    return [
        word for word in _WORDS if count([word]) == special + 1 and count([f"{word} {word}"]) == special + 2
    ]


def _add_up(count: TokenCounter, words: Sequence[str]) -> bool:
    """Whether many of these words in a row are as many tokens: pieces may merge across words."""
    return len(words) >= 8 and count([" ".join(_sequence(words[2:], 600))]) == 600 + count([""])


@dataclass(slots=True)
class _Search:
    """Lengths tried so far on one backend."""

    embed: EmbedOne
    ruler: Ruler
    probes: int = 0
    refused: str = ""

    def reads(self, length: int) -> bool:
        """Whether the last token of a text of this length changes its vector."""
        self.probes += 1
        first, second = self._vector(length, 0), self._vector(length, 1)
        if first is None or second is None:
            return False
        change = float(np.abs(first - second).max())
        if change == 0 or change >= _SURE:
            return change > 0
        again = self._vector(length, 0)  # a small change: is it the text's, or the backend's own?
        return again is not None and change > 3 * float(np.abs(first - again).max())

    def _vector(self, length: int, which: Literal[0, 1]) -> NDArray[np.float64] | None:
        try:
            result = self.embed(self.ruler.ending(length, which))
        except BackendError as error:
            self.refused = error.why or error.what
            return None
        if result.failures:
            self.refused = result.failures[0].what
            return None
        vector: NDArray[np.float64] = result.vectors[0].astype(np.float64)
        return vector

    def longest(self, claimed: int | None) -> tuple[int | None, bool]:
        """The longest length that is read, and whether that is only as far as was looked."""
        if not self.reads(SHORTEST):
            return None, False
        guess = max(claimed or 512, SHORTEST)
        good, bad = self._beyond(guess) if self.reads(guess) else (SHORTEST, guess)
        if bad is None:
            return good, True
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if self.reads(middle) else (good, middle)
        return good, False

    def _beyond(self, read: int) -> tuple[int, int | None]:
        """A length that is read and a longer one that is not, if there is one, from one that is read on."""
        for longer in (
            read + 1,
            max(LONGEST, read) + 1,
        ):  # a truthful backend ends right after what it claims
            if not self.reads(longer):
                return read, longer
            read = longer
        return read, None


def why_unread(embed: EmbedOne, ruler: Ruler, length: int) -> str:
    """How it shows that the last word of a text of this length is not read; empty where it is.

    Raises:
        Cancelled: By `embed`.
    """
    search = _Search(embed, ruler)
    if search.reads(length):
        return ""
    return search.refused or f"the last of {length:,} {ruler.unit} changes nothing"


def find_limit(backend: BackendName, embed: EmbedOne, ruler: Ruler, claimed: int | None) -> LengthLimit:
    """Find the longest text that a backend reads to its end.

    Args:
        claimed: What it says of itself, in tokens with the special ones.

    Raises:
        Cancelled: By `embed`.
    """
    search = _Search(embed, ruler)
    effective, at_least = search.longest(claimed)
    refuses, told, reported, why = False, None, None, ""
    if effective is None:
        why = search.refused or f"the last of {SHORTEST} {ruler.unit} changes nothing"
    elif not at_least:
        try:
            over = embed(ruler.text(effective + _OVER))
            refuses = bool(over.failures)
            if not refuses:
                told, reported = bool(over.truncated), over.tokens
        except BackendError as error:
            refuses, why = True, error.why or error.what
    return LengthLimit(
        backend=backend,
        unit=ruler.unit,
        claimed=claimed,
        effective=effective,
        at_least=at_least,
        refuses=refuses,
        told=told,
        reported=reported,
        probes=search.probes,
        why=why,
    )
