"""The passages nearest to texts. A corpus is embedded once per model and backend; its vectors are kept."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from embedctl.errors import BackendError, UsageError
from embedctl.progress import CancelToken
from embedctl.records import BackendName, EmbedResult, Nearest, NearPassage

if TYPE_CHECKING:
    from embedctl.records.backends import Vectors

    Rows = dict[int, Vectors]
    """Vectors of a corpus, as far as they were made: an array per request, by its first passage's place."""

MOST_PASSAGES: Final = 2_000
MOST_CHARACTERS: Final = 4_000_000
_KEPT: Final = 4
"""Corpora whose vectors are kept, the latest used: at most 8 MiB each for 1,024 numbers a passage."""
_AT_ONCE: Final = 8
"""Passages a request: between two the wish to stop is heard, and other requests get their turn."""


class Embed(Protocol):
    """`EngineFacade.embed`, as far as it is needed here."""

    def __call__(
        self, texts: Sequence[str], *, backend: BackendName | None, cancel: CancelToken | None
    ) -> EmbedResult: ...


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages in a fixed order."""

    name: str
    texts: tuple[str, ...]
    groups: tuple[str, ...] = ()
    """The language of each; empty for the user's own."""

    @property
    def digest(self) -> str:
        whole = hashlib.sha256()
        for text in self.texts:
            whole.update(text.encode(errors="surrogatepass") + b"\0")
        return whole.hexdigest()

    def at(self, place: int, cosine: float) -> NearPassage:
        return NearPassage(place, self.texts[place], self.groups[place] if self.groups else "", cosine)


@cache
def built_in_corpus() -> Corpus:
    """120 paragraphs of XQuAD in six languages, each paragraph in one (assets/texts/ATTRIBUTION.md).

    Raises:
        UsageError: The files are not there.
    """
    from embedctl.lab.check_texts import texts_for_check

    found = texts_for_check()
    texts, groups = (tuple(of[place] for place in found.documents) for of in (found.texts, found.groups))
    return Corpus(f"{len(texts)} paragraphs of XQuAD, CC BY-SA 4.0", texts, groups)


def own_corpus(passages: Sequence[str]) -> Corpus:
    """Passages that the user brings.

    Raises:
        UsageError: There are none, or too many to be searched while somebody waits.
    """
    if not passages:
        raise UsageError("There is no passage to search", remedy="give a file with one passage a line")
    characters = sum(map(len, passages))
    if len(passages) > MOST_PASSAGES or characters > MOST_CHARACTERS:
        raise UsageError(
            "These are too many passages",
            why=f"{len(passages):,} with {characters:,} characters; at most {MOST_PASSAGES:,} and "
            f"{MOST_CHARACTERS:,} are searched here",
            remedy="give fewer; `embedctl quality` searches large sets",
        )
    return Corpus(f"{len(passages):,} passages of yours", tuple(passages))


class Corpora:
    """Searches corpora. Thread-safe; two callers may embed the same passages at the same time."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Rows] = OrderedDict()
        """By the backend's fingerprint and the corpus' digest, the latest used last."""

    def nearest(
        self,
        of: EmbedResult,
        corpus: Corpus,
        count: int,
        *,
        patience: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Nearest:
        """The `count` passages nearest to each text of an answer, by the backend that gave it.

        What is not embedded yet is embedded first, for about `patience` seconds (None: all of it). What was
        done is kept, also where the rest was cancelled.

        Raises:
            BackendError: The backend failed, or is no longer the one that answered.
            Cancelled: `cancel` was set.
        """
        import numpy as np

        from embedctl.similarity import cosine_matrix

        started = time.monotonic()
        rows = self._rows(of.fingerprint, corpus)
        # What is not kept cannot be waited for: it would begin anew each time.
        deadline = None if patience is None or of.fingerprint is None else started + patience
        searching = bool(np.isfinite(of.vectors).all(axis=1).any())  # else nothing would be found
        new = self._embed_missing(of, corpus, rows, deadline, cancel) if searching else 0
        vectors = np.full((len(corpus.texts), of.vectors.shape[1]), np.nan, np.float32)
        done = 0
        for start, made in list(rows.items()):
            vectors[start : start + len(made)] = made
            done += len(made)
        cosines = cosine_matrix(of.vectors, vectors)
        ranked = np.argsort(np.where(np.isfinite(cosines), -cosines, np.inf), axis=1, kind="stable")
        return Nearest(
            backend=of.backend,
            corpus=corpus.name,
            passages=len(vectors),
            embedded=new,
            waiting=len(vectors) - done if searching else 0,
            without_vector=done - int(np.isfinite(vectors).all(axis=1).sum()),
            found=tuple(
                tuple(corpus.at(int(place), float(row[place])) for place in places if np.isfinite(row[place]))
                for row, places in zip(cosines, ranked[:, :count], strict=True)
            ),
            seconds=time.monotonic() - started,
        )

    def _embed_missing(
        self,
        of: EmbedResult,
        corpus: Corpus,
        rows: Rows,
        deadline: float | None,
        cancel: CancelToken | None,
    ) -> int:
        """Add to `rows` what they lack of the corpus, until the deadline; the number of passages embedded."""
        new = 0
        for start in range(0, len(corpus.texts), _AT_ONCE):
            if start in rows:
                continue
            if new and deadline is not None and time.monotonic() > deadline:
                break
            texts = corpus.texts[start : start + _AT_ONCE]
            answer = self._embed(texts, backend=of.backend, cancel=cancel)
            if answer.fingerprint != of.fingerprint or answer.vectors.shape[1] != of.vectors.shape[1]:
                raise BackendError(
                    f"{of.backend} is no longer the one that embedded the texts",
                    why="it was loaded anew in between, with another model or precision",
                    remedy="embed the texts again",
                )
            rows[start] = answer.vectors
            new += len(texts)
        return new

    def _rows(self, fingerprint: str | None, corpus: Corpus) -> Rows:
        if fingerprint is None:  # nobody could say later what these vectors are of
            return {}
        key = fingerprint, corpus.digest
        with self._lock:
            found = self._kept.setdefault(key, {})
            self._kept.move_to_end(key)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return found
