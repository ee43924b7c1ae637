"""The correctness gate: is what one backend gives right in itself, before it is compared with anything?

No speed and no agreement counts for a backend that fails here. [MLPerf keeps accuracy and performance apart]
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedctl.lab.check_evidence import Evidence
from embedctl.lab.parity import steps
from embedctl.records import CheckRow, LengthLimit, Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

NORM_TOLERANCE: Final = 1e-3
CONSTANT: Final = 0.999
"""Mean cosine between different texts' vectors from which on they are as good as one vector."""
TWINS: Final = 0.05
"""Share of different texts with the vector of another: a few mean the same to the tokenizer, not so many."""
JUMP: Final = 0.02
"""1 − cosine that one more token may turn the vector of a text of hundreds of tokens."""
_JUMP_FACTOR: Final = 5.0
"""… and only where it turns it so many times as far as at the other lengths."""
_LONG: Final = 500
_QUOTED: Final = 40


def gate(evidence: Evidence, texts: Sequence[str]) -> tuple[CheckRow, ...]:
    """Every look at one backend by itself."""
    name = evidence.backend
    if evidence.wrong_at_load:
        return (
            CheckRow("canary", name, Outcome.BAD, f"{name} failed after loading: {evidence.wrong_at_load}"),
        )
    rows = [*_vectors(evidence, texts), *_requests(evidence), *_lengths(evidence), _tokens(evidence)]
    if evidence.limit is not None:
        rows.append(limit_row(evidence.limit))
    return tuple(rows)


def has_vector(vectors: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows of shape (n, dimension) are vectors: finite, and of some width. Shape (n,)."""
    whole: NDArray[np.bool_] = (
        np.isfinite(vectors).all(axis=1) if vectors.shape[1] else np.zeros(len(vectors), bool)
    )
    return whole


def quote(text: str) -> str:
    """A text's beginning, for a sentence."""
    shown = " ".join(text.split())
    return f"“{shown}”" if len(shown) <= _QUOTED else f"“{shown[:_QUOTED].rstrip()}…”"


def _vectors(evidence: Evidence, texts: Sequence[str]) -> list[CheckRow]:
    name, vectors = evidence.backend, evidence.vectors
    found: list[tuple[Outcome, str]] = []
    if evidence.stopped:
        found.append((Outcome.BAD, f"{name} was given up: {evidence.stopped}"))
    elif evidence.errors:
        what = Counter(evidence.errors).most_common(1)[0][0]
        share = f"{len(evidence.errors)} of {evidence.requests:,} requests"
        found.append((Outcome.BAD, f"{name} failed {share}: {what}"))
    if len(evidence.widths) > 1:
        found.append((Outcome.BAD, f"{name} gives vectors of {_listed(evidence.widths)} dimensions"))
    finite = has_vector(vectors)
    missing = [place for place in range(evidence.asked) if not finite[place]]
    if missing:
        first = missing[0]
        why = evidence.failures.get(first, "it is not finite")
        found.append(
            (
                Outcome.BAD,
                f"{name} has no vector for {len(missing):,} of {evidence.asked:,} texts: "
                f"{quote(texts[first])}: {why}",
            )
        )
    good = vectors[finite].astype(np.float64)
    if len(good):
        found += _of_good(evidence, good, [texts[place] for place in np.flatnonzero(finite).tolist()])
    if not found and len(good):
        sentence = (
            f"{len(good):,} texts in lists: finite, unit norm, {vectors.shape[1]:,} dimensions, distinct"
        )
        found.append((Outcome.OK, sentence))
    return [CheckRow("vectors", name, outcome, sentence) for outcome, sentence in found]


def _of_good(
    evidence: Evidence, good: NDArray[np.float64], texts: Sequence[str]
) -> list[tuple[Outcome, str]]:
    """Norm and distinctness of the vectors that are finite."""
    name = evidence.backend
    found: list[tuple[Outcome, str]] = []
    norms = np.linalg.norm(good, axis=1)
    off = np.abs(norms - 1) > NORM_TOLERANCE
    if off.any():
        span = f"{norms.min():.3g} to {norms.max():.3g}"
        found.append(
            (Outcome.BAD, f"{name} gives vectors without unit norm ({int(off.sum()):,} texts, norms {span})")
        )
    elif evidence.rescaled:
        found.append(
            (
                Outcome.LIMIT,
                f"{name} gives vectors without unit norm ({evidence.rescaled:,} texts): embedctl normalises "
                f"them, who asks {name} directly has to",
            )
        )
    unit = good / np.maximum(norms, 1e-12)[:, None]
    count = len(unit)
    if count > 1:
        total = float(np.sum(unit.sum(axis=0) ** 2))
        alike = (total - count) / (count * (count - 1))  # mean cosine over all pairs
        if alike > CONSTANT:
            found.append((Outcome.BAD, f"{name} gives different texts the same vector (a constant vector)"))
        elif (twins := _twins(unit, texts)) > TWINS * count:
            found.append(
                (Outcome.BAD, f"{name} gives {twins:,} of {count:,} texts the vector of another text")
            )
    return found


def _twins(unit: NDArray[np.float64], texts: Sequence[str]) -> int:
    """Texts whose vector another, really different text has, too."""
    owners: dict[bytes, set[str]] = {}
    for text, row in zip(texts, np.round(unit, 6), strict=True):
        owners.setdefault((row + 0.0).tobytes(), set()).add(_plain(text))
    return sum(len(sharing) for sharing in owners.values() if len(sharing) > 1)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _requests(evidence: Evidence) -> list[CheckRow]:
    name, rows = evidence.backend, []
    for shape in evidence.shapes:
        if wrong := shape.wrong:
            share = f"{len(wrong)} of {len(shape.cosines)} texts"
            if shape.exchanged and shape.shape.startswith("a list"):
                what = f"in {shape.shape} {name} gives {share} the vector of another: the order is wrong"
            elif shape.exchanged:
                what = f"in {shape.shape} {name} gives {share} the vector of another"
            else:
                least = np.nan_to_num(np.array(shape.cosines)[wrong], nan=-1.0).min()
                what = f"in {shape.shape} {name} gives {share} a wrong vector (cosine {least:.3f} to alone)"
            rows.append(CheckRow("requests", name, Outcome.BAD, what))
    seen = [shape for shape in evidence.shapes if shape.cosines]
    if not rows and seen:
        least = min(min(shape.cosines) for shape in seen)
        names = ", ".join(shape.shape for shape in seen)
        what = f"one text, {names}: the same vectors (least cosine {least:.6f})"
        rows.append(CheckRow("requests", name, Outcome.OK, what))
    return rows


def _lengths(evidence: Evidence) -> list[CheckRow]:
    """Whether the vector jumps where a text grows by one token; needs neighbouring lengths to be read."""
    turned = {length: step for length, step in steps(evidence.lengths).items() if length >= _LONG}
    if len(turned) < 3:
        return []
    usual = float(np.median(list(turned.values())))
    jumps = [length for length, step in turned.items() if step > max(JUMP, _JUMP_FACTOR * usual)]
    name = evidence.backend
    if not jumps:
        what = f"no jump between neighbouring lengths up to {max(turned):,} tokens"
        return [CheckRow("lengths", name, Outcome.OK, what)]
    where = ", ".join(f"{length - 1:,} to {length:,}" for length in jumps)
    what = f"the vectors of {name} jump from {where} tokens (cosine {1 - turned[jumps[0]]:.3f})"
    return [CheckRow("lengths", name, Outcome.LIMIT, what)]


def _tokens(evidence: Evidence) -> CheckRow:
    name, counts = evidence.backend, evidence.counts
    if not counts:
        return CheckRow("tokens", name, Outcome.OK, "not compared: no tokenizer here, or it counts none")
    other = [(text, ours, theirs) for text, ours, theirs in counts if ours != theirs]
    if not other:
        return CheckRow("tokens", name, Outcome.OK, f"counts {len(counts)} texts as the tokenizer does")
    text, ours, theirs = max(other, key=lambda one: abs(one[1] - one[2]))
    what = (
        f"{name} counts {len(other)} of {len(counts)} texts otherwise than the model's tokenizer "
        f"({theirs:,}, not {ours:,}: {quote(text)})"
    )
    return CheckRow("tokens", name, Outcome.LIMIT, what)


def limit_row(limit: LengthLimit) -> CheckRow:
    """What is to be said of one backend's length limit."""
    name, unit, effective = limit.backend, limit.unit, limit.effective
    if effective is None:
        return CheckRow("limit", name, Outcome.UNKNOWN, f"the limit of {name} was not found: {limit.why}")
    if limit.at_least:
        return CheckRow("limit", name, Outcome.OK, f"reads at least {effective:,} {unit}")
    if limit.refuses:
        return CheckRow(
            "limit", name, Outcome.LIMIT, f"texts over {effective:,} {unit} are refused by {name}"
        )
    short = limit.claimed is not None and unit == "tokens" and effective < limit.claimed
    if not short and limit.told:
        claim = ", as it says" if effective == limit.claimed else ""
        what = f"reads {effective:,} {unit}{claim}; longer texts are cut, and it says so"
        return CheckRow("limit", name, Outcome.OK, what)
    what = f"texts over {effective:,} {unit} are cut by {name}" + ("" if limit.told else ", silently")
    if short:
        what += f" (it claims {limit.claimed:,})"
    return CheckRow("limit", name, Outcome.LIMIT, what)


def _listed(numbers: set[int]) -> str:
    return " and ".join(f"{number:,}" for number in sorted(numbers))
