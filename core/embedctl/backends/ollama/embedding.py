"""From a list of texts to an array of vectors over `/api/embed`: batches, checks, and isolation of bad texts.

Every request says `truncate: false`. A server that would cut a text refuses it instead, so a cut is known
and not guessed: the refused text is found, sent again alone with `truncate: true`, and reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from embedctl.backends.ollama.errors import TextFault, TextRefused
from embedctl.errors import BackendAnswerError, BackendError, InvalidTextError
from embedctl.records import CanaryReport, TextFailure

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedctl.records.backends import Vectors

CANARY_TEXTS = (
    "embedding",
    "The quick brown fox jumps over the lazy dog.",
    "What does a vector database do with the vectors that it is given?",
    "Der Zug nach Köln fährt heute von Gleis 7 ab, etwa zehn Minuten später als geplant.",
    "向量检索把语义相近的文本放在一起。",
    "def mean(xs: list[float]) -> float:\n    return sum(xs) / len(xs)",
    "One long sentence, " * 40 + "and its end.",
)
NORM_TOLERANCE = 1e-3
"""How far from 1 a norm may lie: float32 sums over 1,024 components stay within 1e-6, fp16 within 1e-3."""
ALONE_COSINE = 0.999
"""A text embedded alone and in a list must agree at least so far."""
GIVE_UP_AFTER = 8
"""Texts in a row that fail for no reason of their own: the server is at fault, and asking goes no further."""
_SILENT_CUT = 2048
"""llama-server's default batch: the count at which texts were seen to be cut silently (ollama#14259)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of `/api/embed`."""

    vectors: NDArray[np.float32]
    """Shape (n, dimension), as the server sent them."""
    tokens: int | None
    load_seconds: float | None = None


class Post(Protocol):
    """Sends one request to `/api/embed`."""

    def __call__(self, texts: Sequence[str], *, truncate: bool) -> Answer:
        """Raises `TextRefused` where one text may be the cause, else `BackendError`."""


@dataclass(slots=True)
class Outcome:
    """What has come of a request so far."""

    vectors: Vectors
    """Shape (n, dimension); (n, 0) until the first answer; rows without a vector are NaN."""
    tokens: int | None = 0
    truncated: list[int] = field(default_factory=list)
    rescaled: list[int] = field(default_factory=list)
    failures: list[TextFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    server_error: BackendError | None = None
    """The first failure that may be the server's as well as a text's."""
    longest_load: float = 0.0
    """Seconds: the model was not in memory, and whatever the tag names by now was loaded."""
    suspects: int = 0
    """Texts in a row that failed so, none of the others getting through meanwhile."""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def fail(self, index: int, what: str) -> None:
        self.failures.append(TextFailure(index, what))


def check_texts(texts: Sequence[object]) -> None:
    """Raises:
    InvalidTextError: One of them is not a string; says which.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidTextError(
                f"Text {index} is not a string but {type(text).__name__}",
                remedy="pass strings only",
                index=index,
            )


def vectors_of(rows: Sequence[Sequence[float]], count: int, dimension: int | None) -> NDArray[np.float32]:
    """The rows of an answer as an array of shape (count, dimension).

    Raises:
        BackendAnswerError: Not `count` rows, rows of unequal length, or another dimension than expected.
    """
    if len(rows) != count:
        raise BackendAnswerError(
            f"Ollama answered {len(rows)} vectors for {count} texts",
            why="so which vector belongs to which text cannot be known",
            remedy="update Ollama, or lower the batch size",
        )
    lengths = {len(row) for row in rows}
    if len(lengths) > 1 or 0 in lengths:
        raise BackendAnswerError(
            "Ollama answered vectors of unequal or no length",
            why=f"lengths {sorted(lengths)}",
            remedy="check that the model is an embedding model",
        )
    vectors = np.asarray(rows, dtype=np.float32)
    if dimension is not None and vectors.shape[1] != dimension:
        raise BackendAnswerError(
            f"Ollama's vectors have {vectors.shape[1]} dimensions, not {dimension}",
            why="the tag does not serve the configured model",
            remedy="set model.ollama_tag to the model with the same weights as model.repo",
        )
    return vectors


def embed_texts(
    texts: Sequence[str],
    post: Post,
    *,
    batch_size: int,
    normalize: bool,
    dimension: int | None,
    max_tokens: int | None,
) -> Outcome:
    """Embed texts in order, `batch_size` a request.

    A text that fails alone gets a NaN row and a `TextFailure`, and the others their vectors. `dimension`
    (if known) is the width of the rows when no text got a vector.

    Raises:
        BackendError: The whole request failed, or `GIVE_UP_AFTER` texts in a row for no reason of their own.
    """
    outcome = Outcome(np.empty((len(texts), 0), dtype=np.float32))
    for start in range(0, len(texts), batch_size):
        indices = range(start, min(start + batch_size, len(texts)))
        _embed_some(list(indices), texts, post, outcome)
        if outcome.server_error and outcome.vectors.shape[1] == 0:
            raise outcome.server_error  # no text got through: the cause is the server, not a text
    if outcome.vectors.shape[1] == 0:  # no text, or every text failed
        outcome.vectors = np.full((len(texts), dimension or 0), np.nan, dtype=np.float32)
    if not normalize:
        outcome.note("Ollama's /api/embed always normalises; the vectors have unit norm")
    if outcome.truncated:
        limit = f"{max_tokens:,} tokens" if max_tokens else "its length limit"
        outcome.note(f"{len(outcome.truncated)} of {len(texts)} texts were cut by Ollama at {limit}")
    outcome.truncated.sort()
    outcome.rescaled.sort()
    outcome.failures.sort(key=lambda failure: failure.index)
    return outcome


def _embed_some(indices: list[int], texts: Sequence[str], post: Post, outcome: Outcome) -> None:
    """Fill the rows of `indices`; halve the batch wherever one text fails it."""
    some = [texts[index] for index in indices]
    try:
        answer = post(some, truncate=False)
    except TextRefused as refused:
        if len(indices) > 1:
            if refused.fault is TextFault.TOO_LONG:
                # The long ones together, so that few halves hold one; and first, so that a half is refused
                # before its other texts have been embedded in vain.
                indices = sorted(indices, key=lambda index: len(texts[index]), reverse=True)
            else:
                outcome.note("one text failed its batch; the batch was halved until it stood alone")
            middle = len(indices) // 2
            _embed_some(indices[:middle], texts, post, outcome)
            _embed_some(indices[middle:], texts, post, outcome)
            return
        if refused.fault is not TextFault.TOO_LONG:
            if refused.fault is TextFault.OTHER:
                outcome.server_error = outcome.server_error or refused.error
                outcome.suspects += 1
                if outcome.suspects >= GIVE_UP_AFTER:
                    raise refused.error from refused
            outcome.fail(indices[0], _what(refused))
            return
        try:
            answer = post(some, truncate=True)
        except TextRefused as again:
            outcome.fail(indices[0], _what(again))
            return
        outcome.truncated.append(indices[0])
    _take(answer, indices, some, outcome)


def _take(answer: Answer, indices: list[int], some: Sequence[str], outcome: Outcome) -> None:
    rows = answer.vectors
    outcome.suspects = 0
    if outcome.vectors.shape[1] == 0:
        outcome.vectors = np.full((len(outcome.vectors), rows.shape[1]), np.nan, dtype=np.float32)
    elif outcome.vectors.shape[1] != rows.shape[1]:
        raise BackendAnswerError(
            f"Ollama's vectors changed from {outcome.vectors.shape[1]} to {rows.shape[1]} dimensions",
            why="the model behind the tag changed during the request",
            remedy="load the backend again",
        )
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    for row, norm in enumerate(norms):
        if not np.isfinite(norm):
            outcome.fail(indices[row], TextFault.NOT_FINITE.value)
        elif norm == 0:
            outcome.fail(indices[row], "Ollama answered a vector of zeros for this text")
    good = np.isfinite(norms) & (norms > 0)
    off = good & ~(np.abs(norms - 1) <= NORM_TOLERANCE)
    if off.any():
        outcome.rescaled.extend(np.asarray(indices)[off].tolist())
        outcome.note("Ollama's vectors were not of unit norm and were normalised here")
        rows = (rows / np.where(good, norms, 1)[:, None]).astype(np.float32)
    outcome.vectors[np.asarray(indices)[good]] = rows[good]
    outcome.tokens = (
        None if outcome.tokens is None or answer.tokens is None else outcome.tokens + answer.tokens
    )
    outcome.longest_load = max(outcome.longest_load, answer.load_seconds or 0.0)
    if answer.load_seconds is not None and answer.load_seconds > 1:
        outcome.note(f"Ollama had to load the model again first ({answer.load_seconds:.1f} s)")
    if len(some) == 1 and answer.tokens == _SILENT_CUT and len(some[0].encode()) > 3 * _SILENT_CUT:
        outcome.note(
            f"Ollama counted exactly {_SILENT_CUT:,} tokens for a text of {len(some[0]):,} characters: "
            "it may have been cut silently (ollama#14259)"
        )


def _what(refused: TextRefused) -> str:
    if refused.fault is TextFault.OTHER:
        return f"{refused.fault.value}: {refused.error.why or refused.error.what}"
    return str(refused.fault.value)


def check_canary(together: Outcome, alone: Vectors, dimension: int | None) -> CanaryReport:
    """Judge the vectors of `CANARY_TEXTS`; `alone` is the second text's vector from a request of its own.

    `dimension` is the one expected, if one is.
    """
    vectors = together.vectors
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    worst = float(np.abs(norms - 1).max()) if np.isfinite(norms).all() else None
    cosines = vectors @ vectors.T
    twins = np.argwhere(np.triu(cosines, k=1) > 1 - 1e-6)
    agreement = float(vectors[1] @ alone[0]) if np.isfinite(vectors[1] @ alone[0]) else None
    detail = ""
    if together.failures:
        first = together.failures[0]
        detail = f"canary text {first.index}: {first.what}"
    elif dimension is not None and vectors.shape[1] != dimension:
        detail = f"the vectors have {vectors.shape[1]} dimensions, not {dimension}"
    elif worst is None or worst > NORM_TOLERANCE:
        detail = "the vectors are not of unit norm"
    elif len(twins):
        a, b = (int(index) for index in twins[0])
        detail = f"different texts got the same vector (canary texts {a} and {b})"
    elif agreement is None or agreement < ALONE_COSINE:
        shown = "no number" if agreement is None else f"{agreement:.4f}"
        detail = f"a text sent alone and in a list got different vectors (cosine {shown})"
    return CanaryReport(
        passed=not detail,
        texts=len(vectors),
        dimension=int(vectors.shape[1]),
        worst_norm_error=worst,
        least_cosine=agreement,
        reference="the same text in a request of its own",
        detail=detail,
    )
