"""What one backend shows: everything a check needs of it, collected while it alone is at work.

Backends are asked one after the other and compared afterwards, so that two that do not fit into the memory
together can be checked in turns.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from embedctl.errors import BackendError
from embedctl.lab.check_texts import CheckTexts
from embedctl.lab.concurrency import ROUNDS, ShapeResult, Solo, at_once, in_a_list
from embedctl.lab.limits import PROBE_LENGTHS, Ruler, find_limit
from embedctl.lab.tokens import TokenCounter
from embedctl.progress import CancelToken
from embedctl.records import BackendName, EmbedResult, Fingerprint, LengthLimit

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIST: Final = 32
"""Texts per request where nothing else is said."""
SOLO_TEXTS: Final = 24
_MIXED_LENGTHS: Final = (8, 384, 16, 200, 32, 511, 8, 100)
_ERRORS_IN_A_ROW: Final = 5
"""Failed requests after which a backend is not asked any more."""
_LIMIT_WORK: Final = 120
"""What finding the limit and embedding the length probes count for in the progress, in texts."""


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """One loaded backend."""

    name: BackendName
    embed: Callable[[Sequence[str]], EmbedResult]
    """May be called from several threads."""
    fingerprint: Fingerprint


@dataclass(slots=True)
class Evidence:
    """What one backend showed."""

    backend: BackendName
    fingerprint: Fingerprint
    vectors: NDArray[np.float32]
    """Of the check's texts, shape (n, dimension); NaN where there is none."""
    asked: int = 0
    """Texts for which a vector was asked in the big set."""
    failures: dict[int, str] = field(default_factory=dict)
    """Why a text has no vector, by its place."""
    rescaled: int = 0
    """Texts whose vectors arrived without unit norm."""
    widths: set[int] = field(default_factory=set)
    requests: int = 0
    errors: list[str] = field(default_factory=list)
    """Requests that failed as a whole, outside of the search for the limit."""
    shapes: list[ShapeResult] = field(default_factory=list)
    limit: LengthLimit | None = None
    lengths: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """The vector of a text of so many tokens."""
    counts: list[tuple[str, int, int]] = field(default_factory=list)
    """A text sent alone, its tokens by the model's tokenizer, and by the backend."""
    wrong_at_load: str = ""
    """What the canary found; nothing else was asked then."""
    stopped: str = ""
    """Why not everything was asked; empty if it was."""

    @classmethod
    def of_wrong_load(cls, backend: BackendName, fingerprint: Fingerprint, texts: int, why: str) -> Self:
        """Of a backend whose canary failed."""
        return cls(backend, fingerprint, np.full((texts, 0), np.nan, dtype=np.float32), wrong_at_load=why)


class _GivenUp(Exception):
    """So many requests in a row failed that the rest would, too."""


class _Sender:
    """Sends requests on, counts those that failed, and notices when there is no point in going on."""

    def __init__(self, target: CheckTarget, evidence: Evidence, cancel: CancelToken) -> None:
        self._target = target
        self._evidence = evidence
        self._cancel = cancel
        self._lock = threading.Lock()
        self._in_a_row = 0

    def __call__(self, texts: Sequence[str]) -> EmbedResult:
        """Raises:
        BackendError: The request failed.
        Cancelled: `cancel` was set.
        """
        self._cancel.raise_if_cancelled()
        try:
            result = self._target.embed(texts)
        except BackendError as error:
            with self._lock:
                self._evidence.requests += 1
                self._evidence.errors.append(error.sentence)
                self._in_a_row += 1
                if self._in_a_row >= _ERRORS_IN_A_ROW:
                    raise _GivenUp from error
            raise
        with self._lock:
            self._evidence.requests += 1
            self._in_a_row = 0
            self._evidence.widths.add(result.vectors.shape[1])
        return result

    def one(self, text: str) -> EmbedResult:
        return self((text,))

    def tolerant(self, text: str) -> EmbedResult:
        """As `one`, for a text that may be too long: that it fails is an answer and no error."""
        self._cancel.raise_if_cancelled()
        return self._target.embed((text,))


def work_of(texts: CheckTexts) -> int:
    """How much `collect` has to do for one backend, in texts."""
    solo = min(SOLO_TEXTS, len(texts.texts))
    return len(texts.texts) + solo * (2 + ROUNDS) + 3 * len(_MIXED_LENGTHS) + _LIMIT_WORK


def collect(
    target: CheckTarget,
    texts: CheckTexts,
    count: TokenCounter | None,
    report: Callable[[str, float], None],
    cancel: CancelToken,
) -> Evidence:
    """Ask one backend for everything.

    Args:
        count: The model's tokenizer, special tokens included; None if it is not at hand.
        report: Told the step and the work done so far, of `work_of(texts)`.

    Raises:
        Cancelled: `cancel` was set.
    """
    evidence = Evidence(
        target.name, target.fingerprint, np.full((len(texts.texts), 0), np.nan, dtype=np.float32)
    )
    send = _Sender(target, evidence, cancel)
    ruler = Ruler(count)
    done = 0.0

    def tell(step: str, more: float = 0.0) -> None:
        nonlocal done
        report(f"{target.name}: {step}", done)
        done += more

    try:
        solo = _ask_in_shapes(send, evidence, texts, ruler, count, tell)
        _ask_all(send, evidence, texts, tell)
        _compare_with_alone(evidence, texts, solo)
        tell("length limit", _LIMIT_WORK * 0.7)
        evidence.limit = find_limit(target.name, send.tolerant, ruler, target.fingerprint.max_tokens)
        tell("known lengths", _LIMIT_WORK * 0.3)
        _ask_lengths(send, evidence, ruler, count)
    except _GivenUp:
        evidence.stopped = f"{_ERRORS_IN_A_ROW} requests in a row failed: {evidence.errors[-1]}"
    return evidence


def _ask_in_shapes(
    send: _Sender,
    evidence: Evidence,
    texts: CheckTexts,
    ruler: Ruler,
    count: TokenCounter | None,
    tell: Callable[[str, float], None],
) -> Solo:
    """Returns some of the texts with their vectors, each sent alone."""
    chosen = _some(texts)
    tell("one text at a time", len(chosen))
    solo = _alone(send, evidence, chosen, count)
    if len(solo.texts):
        tell("a list", len(chosen))
        evidence.shapes.append(in_a_list(send, solo, "a list", rounds=1))
        tell("requests at once", ROUNDS * len(chosen))
        evidence.shapes.append(at_once(send, solo))
    longest = evidence.fingerprint.max_tokens or max(_MIXED_LENGTHS)
    mixed = [ruler.text(min(length, longest)) for length in _MIXED_LENGTHS]
    tell("lists of mixed lengths", 3 * len(mixed))
    among_mixed = _alone(send, evidence, list(dict.fromkeys((*mixed, *chosen[:4]))), count)
    if len(among_mixed.texts):
        evidence.shapes.append(in_a_list(send, among_mixed, "a list of mixed lengths", rounds=2))
    return solo


def _some(texts: CheckTexts) -> list[str]:
    """A few texts of every group and length, always the same."""
    chosen: list[str] = []
    places = list(range(len(texts.texts)))
    random.Random(0).shuffle(places)  # a choice, no secret
    by_group: dict[str, list[int]] = {}
    for place in places:
        by_group.setdefault(texts.groups[place], []).append(place)
    while len(chosen) < SOLO_TEXTS and any(by_group.values()):
        for group in by_group.values():
            if group and (text := texts.texts[group.pop()]) not in chosen:
                chosen.append(text)
    return chosen[:SOLO_TEXTS]


def _alone(send: _Sender, evidence: Evidence, chosen: Sequence[str], count: TokenCounter | None) -> Solo:
    """Each text in a request of its own, nothing else under way; those that got a vector."""
    kept, rows = [], []
    for text in chosen:
        try:
            result = send.one(text)
        except BackendError:
            continue
        if not result.failures and np.isfinite(result.vectors).all():
            kept.append(text)
            rows.append(result.vectors[0])
            _note_tokens(evidence, text, result, count)
    widths = {len(row) for row in rows}
    if len(widths) != 1:  # nothing, or unlike things: the gate says so
        return Solo((), np.empty((0, 0), np.float32))
    return Solo(tuple(kept), np.stack(rows))


def _note_tokens(evidence: Evidence, text: str, result: EmbedResult, count: TokenCounter | None) -> None:
    if count is not None and result.tokens is not None and not result.truncated:
        evidence.counts.append((text, count([text]), result.tokens))


def _ask_all(
    send: _Sender, evidence: Evidence, texts: CheckTexts, tell: Callable[[str, float], None]
) -> None:
    for start in range(0, len(texts.texts), LIST):
        some = texts.texts[start : start + LIST]
        tell(f"{len(texts.texts):,} texts", len(some))
        evidence.asked += len(some)
        try:
            result = send(some)
        except BackendError as error:
            evidence.failures |= dict.fromkeys(range(start, start + len(some)), error.what)
            continue
        if evidence.vectors.shape[1] == 0:
            evidence.vectors = np.full((len(texts.texts), result.vectors.shape[1]), np.nan, dtype=np.float32)
        if result.vectors.shape[1] == evidence.vectors.shape[1]:
            evidence.vectors[start : start + len(some)] = result.vectors
        evidence.failures |= {start + failure.index: failure.what for failure in result.failures}
        evidence.rescaled += len(result.rescaled)


def _compare_with_alone(evidence: Evidence, texts: CheckTexts, solo: Solo) -> None:
    """What came in the lists of the big set against the same texts' vectors alone; nothing is asked again."""
    place = {text: number for number, text in enumerate(texts.texts)}
    places = [place[text] for text in solo.texts]
    known = [number for number, at in enumerate(places) if np.isfinite(evidence.vectors[at]).all()]
    if known and evidence.vectors.shape[1]:
        result = ShapeResult(f"lists of {LIST}")
        solo.compare(result, known, evidence.vectors[[places[number] for number in known]])
        evidence.shapes.append(result)


def _ask_lengths(send: _Sender, evidence: Evidence, ruler: Ruler, count: TokenCounter | None) -> None:
    limit = evidence.limit
    if limit is None or limit.effective is None:
        return
    lengths = {length for length in PROBE_LENGTHS if length <= limit.effective} | {limit.effective}
    for length in sorted(lengths):
        text = ruler.text(length)
        try:
            result = send.one(text)
        except BackendError:
            continue
        if not result.failures:
            evidence.lengths[length] = result.vectors[0]
            _note_tokens(evidence, text, result, count if ruler.unit == "tokens" else None)
