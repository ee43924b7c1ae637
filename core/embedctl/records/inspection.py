"""What a look at single texts shows: the model's pieces of them, and the passages nearest to them."""

from __future__ import annotations

from dataclasses import dataclass

from embedctl.records.backends import BackendName
from embedctl.records.jobs import Failure


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a text."""

    text: str
    """As the model's vocabulary has it, such as `▁how`."""
    start: int
    """Index of the first character that it stands for, in the text as it was given."""
    end: int
    """One past the last; equal to `start` for a piece that stands for none."""
    added: bool = False
    """The model puts it there: a special token such as `</s>`, or a part of its prompt."""
    unknown: bool = False
    """The vocabulary has nothing for these characters: to the model, all that is so marked is the same."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """The pieces of one text, also those beyond the model's limit."""

    pieces: tuple[Piece, ...]
    lost: tuple[int, int] | None = None
    """Places of the pieces that the model would not read, from the first to one past the last; None: it reads
    all, or its limit is not known."""
    cut: tuple[int, int] | None = None
    """The characters of the text that go with them, from and to."""

    @property
    def read(self) -> int:
        """Pieces that the model reads, added ones included."""
        return len(self.pieces) - (self.lost[1] - self.lost[0] if self.lost else 0)


@dataclass(frozen=True, slots=True)
class Tokenisation:
    """What the model's own tokenizer makes of some texts."""

    model: str
    texts: tuple[Tokenised, ...]
    """In the order of the texts; empty if `absence` says why."""
    limit: int | None
    """The most tokens of one text that the model reads, added ones included."""
    limit_source: str
    """What says so; without a limit, why it is not known."""
    absence: Failure | None = None
    """Why there are no pieces."""

    @property
    def read(self) -> int | None:
        """Tokens of all texts that the model reads; None without pieces."""
        return None if self.absence is not None else sum(one.read for one in self.texts)


@dataclass(frozen=True, slots=True)
class NearPassage:
    """A passage near a text."""

    index: int
    """Its place among the passages, from 0."""
    text: str
    group: str
    """The language of a built-in passage; empty for the user's own."""
    cosine: float


@dataclass(frozen=True, slots=True)
class Nearest:
    """The passages nearest to each of some texts, by one backend's vectors."""

    backend: BackendName
    corpus: str
    """What was searched, in words."""
    passages: int
    embedded: int
    """How many of them had to be embedded for this answer; the others' vectors were kept from before."""
    waiting: int
    """Passages that are not embedded yet, since the caller's patience was over: ask again."""
    without_vector: int
    """Passages that the backend could not embed: they are never found."""
    found: tuple[tuple[NearPassage, ...], ...]
    """Per text, nearest first; empty for a text without a vector."""
    seconds: float
