"""Is it safe to switch? Two backends' evidence, compared, and the verdict with everything it rests on.

Every threshold stands in `THRESHOLDS` or, for one backend alone, in `correctness`, and is shown with the
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from embedctl.lab import correctness
from embedctl.lab.check_evidence import Evidence
from embedctl.lab.check_texts import OWN, CheckTexts
from embedctl.lab.concurrency import AGREE
from embedctl.lab.neighbours import DEPTH, ndcg, nearest, overlap
from embedctl.lab.parity import low_percentile, parity_groups, worst_texts
from embedctl.lab.statistics import clustered_mean
from embedctl.lab.tokens import TokenCounter
from embedctl.records import (
    CheckReport,
    CheckRow,
    CheckVerdict,
    LengthAgreement,
    Outcome,
    Retrieval,
    Threshold,
)
from embedctl.similarity import cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST: Final = Threshold(
    "least cosine", 0.999, 0.95, "the same weights give 0.999 across engines; 0.95 is another text's meaning"
)
LOW: Final = Threshold("1st percentile of the cosines", 0.999, 0.99, "one text in a hundred is below it")
BY_LENGTH: Final = Threshold(
    "cosine at a length", 0.99, 0.99, "rounding grows with the length, but not so far"
)
OVERLAP: Final = Threshold(
    f"neighbour overlap@{DEPTH}", 0.95, 0.90, "ties change places; one neighbour in ten must not"
)
CROSS: Final = Threshold(
    f"NDCG@{DEPTH} lost across indexes", 0.01, 0.01, "its 95 % interval, above or below this loss"
)
THRESHOLDS: Final = (
    LEAST,
    LOW,
    BY_LENGTH,
    OVERLAP,
    CROSS,
    Threshold("cosine alone and in company", AGREE, AGREE, "batches of other shapes sum in another order"),
    Threshold(
        "norm, distance from 1",
        correctness.NORM_TOLERANCE,
        correctness.NORM_TOLERANCE,
        "a unit vector rounded to 16-bit numbers is off by less",
    ),
)


def judge(
    evidences: Sequence[Evidence],
    texts: CheckTexts,
    count: TokenCounter | None,
    *,
    settings: Mapping[str, str] | None = None,
    not_compared: str = "",
) -> CheckReport:
    """The answer, from what one or two backends showed.

    Args:
        settings: Under which they showed it, by name.
        not_compared: Why there is only one.
    """
    rows = [row for evidence in evidences for row in correctness.gate(evidence, texts.texts)]
    whole = [evidence for evidence in evidences if evidence.vectors.shape[1]]
    pair = (whole[0], whole[1]) if len(whole) == 2 else None
    tokens = None if count is None else [count([text]) for text in texts.texts]
    found = np.full(len(texts.texts), np.nan)
    lengths: tuple[LengthAgreement, ...] = ()
    shared: float | None = None
    retrieval: tuple[Retrieval, ...] = ()
    if pair is not None:
        fair, limit_rows = _limits(pair, texts, tokens)
        found = np.where(fair, cosines(pair[0].vectors, pair[1].vectors), np.nan)
        lengths = _lengths(pair)
        rows += [*limit_rows, _parity(pair, found), *_by_length(lengths)]
        shared, retrieval, retrieval_rows = _neighbours(pair, texts, fair)
        rows += retrieval_rows
    verdict, reasons = _verdict(rows, not_compared)
    return CheckReport(
        verdict=verdict,
        reasons=reasons,
        backends=tuple(evidence.backend for evidence in evidences),
        not_compared=not_compared,
        texts=texts.label,
        settings=settings or {},
        rows=tuple(rows),
        limits=tuple(evidence.limit for evidence in evidences if evidence.limit is not None),
        parity=parity_groups(found, texts.groups, tokens) if pair else (),
        worst=worst_texts(found, texts.texts, texts.groups, tokens),
        lengths=lengths,
        overlap=shared,
        retrieval=retrieval,
        thresholds=THRESHOLDS,
        cosines=tuple(round(float(value), 8) for value in found if np.isfinite(value)),
    )


def headline(report: CheckReport) -> str:
    """The answer in one sentence, the verdict's word first."""
    if report.verdict == "safe":
        least = report.parity[0].least
        agreed = "" if least is None else f", least cosine {least:.5f}"
        return f"safe: {' and '.join(report.backends)} agree on {report.parity[0].texts:,} texts{agreed}"
    more = f" (and {len(report.reasons) - 1} more)" if len(report.reasons) > 1 else ""
    return f"{report.verdict}: {report.reasons[0]}{more}"


def _verdict(rows: Sequence[CheckRow], not_compared: str) -> tuple[CheckVerdict, tuple[str, ...]]:
    def findings(outcome: Outcome) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.finding for row in rows if row.outcome is outcome))

    limits = findings(Outcome.LIMIT)
    if bad := findings(Outcome.BAD):
        return "not safe", (*bad, *limits)  # a limit may be the cause: a drift from a length on, for one
    unknown = findings(Outcome.UNKNOWN)
    if not_compared or unknown:
        return "undecided", (*((not_compared,) if not_compared else ()), *unknown, *limits)
    return ("safe with limits", limits) if limits else ("safe", ())


def _limits(
    pair: tuple[Evidence, Evidence], texts: CheckTexts, tokens: Sequence[int] | None
) -> tuple[NDArray[np.bool_], list[CheckRow]]:
    """Which texts both read to the same end, and what is to be said of the others. Mask of shape (n,)."""
    every = np.ones(len(texts.texts), bool)
    a, b = pair[0].limit, pair[1].limit
    if a is None or b is None or a.effective is None or b.effective is None or a.effective == b.effective:
        return every, []
    short, long = (a, b) if a.effective < b.effective else (b, a)
    assert short.effective is not None
    if short.at_least and long.at_least:
        return every, []
    rows = []
    if correctness.limit_row(short).outcome is not Outcome.LIMIT:  # else it is told already
        what = (
            f"texts over {short.effective:,} {short.unit} are read by {long.backend} up to "
            f"{'at least ' if long.at_least else ''}{long.effective:,} and not by {short.backend}"
        )
        rows.append(CheckRow("limit", None, Outcome.LIMIT, what))
    if tokens is None or short.unit == "words":
        return every, rows
    fair = np.asarray(tokens) <= short.effective
    own = int(np.sum(~fair & (np.asarray(texts.groups) == OWN)))
    if own:
        whole = texts.groups.count(OWN)
        what = (
            f"{own:,} of your {whole:,} texts are over the {short.effective:,} tokens "
            f"that {short.backend} reads"
        )
        rows.append(CheckRow("limit", None, Outcome.BAD, what))
    return fair, rows


def _parity(pair: tuple[Evidence, Evidence], found: NDArray[np.float64]) -> CheckRow:
    if pair[0].vectors.shape != pair[1].vectors.shape:
        widths = " and ".join(f"{one.vectors.shape[1]:,} by {one.backend}" for one in pair)
        return CheckRow("parity", None, Outcome.BAD, f"the dimensions differ: {widths}")
    good = found[np.isfinite(found)]
    low = low_percentile(good)
    if low is None:
        return CheckRow("parity", None, Outcome.UNKNOWN, "no text got a vector from both")
    least = float(good.min())
    figures = f"least cosine {least:.5f}, 1st percentile {low:.5f} over {len(good):,} texts"
    if least >= LEAST.good and low >= LOW.good:
        return CheckRow("parity", None, Outcome.OK, figures)
    if least < LEAST.bad or low < LOW.bad:
        below = int(np.sum(good < LOW.bad))
        what = f"{below:,} of {len(good):,} texts get another vector (cosine below {LOW.bad:g}): {figures}"
        return CheckRow("parity", None, Outcome.BAD, what)
    return CheckRow("parity", None, Outcome.LIMIT, f"the vectors are close and not the same: {figures}")


def _lengths(pair: tuple[Evidence, Evidence]) -> tuple[LengthAgreement, ...]:
    a, b = pair[0].lengths, pair[1].lengths
    rows = (
        (length, float(cosines(a[length][None], b[length][None])[0])) for length in sorted(a) if length in b
    )
    return tuple(LengthAgreement(length, cosine) for length, cosine in rows if np.isfinite(cosine))


def _by_length(lengths: Sequence[LengthAgreement]) -> list[CheckRow]:
    if not lengths:
        return []
    off = [one for one in lengths if one.cosine < BY_LENGTH.bad]
    if not off:
        least = min(one.cosine for one in lengths)
        span = f"{lengths[0].length:,} to {lengths[-1].length:,} tokens"
        return [
            CheckRow(
                "lengths", None, Outcome.OK, f"agree at {len(lengths)} lengths, {span} (least {least:.5f})"
            )
        ]
    first = off[0]
    if tuple(off) == tuple(lengths[-len(off) :]) and len(off) < len(lengths):
        last_good = lengths[-len(off) - 1].length
        what = (
            f"texts of {first.length:,} tokens and more get another vector "
            f"(cosine {first.cosine:.3f} at {first.length:,}; still equal at {last_good:,})"
        )
    else:
        named = ", ".join(f"{one.length:,} ({one.cosine:.3f})" for one in off)
        what = f"texts get another vector at these lengths in tokens: {named}"
    return [CheckRow("lengths", None, Outcome.LIMIT, what)]


def _neighbours(
    pair: tuple[Evidence, Evidence], texts: CheckTexts, fair: NDArray[np.bool_]
) -> tuple[float | None, tuple[Retrieval, ...], list[CheckRow]]:
    """Neighbour overlap, retrieval within each index, and across the two, on texts that both read whole."""
    a, b = (evidence.vectors for evidence in pair)
    if a.shape != b.shape:
        return None, (), []
    good = fair & correctness.has_vector(a) & correctness.has_vector(b)
    place = {document: row for row, document in enumerate(d for d in texts.documents if good[d])}
    searches = [
        (query, place[relevant])
        for query, relevant in zip(texts.queries, texts.relevant, strict=True)
        if good[query] and relevant in place
    ]
    if len(searches) < 2 or len(place) <= DEPTH:
        what = f"neighbours were not compared: only {len(place)} passages have whole vectors from both"
        outcome = Outcome.UNKNOWN if fair.all() else Outcome.LIMIT  # the limit is told, and is the cause
        return None, (), [CheckRow("neighbours", None, outcome, what)]
    asked, wanted = [query for query, _ in searches], [document for _, document in searches]
    documents = list(place)
    found = {
        (i, j): nearest(one[asked], other[documents])
        for i, one in enumerate((a, b))
        for j, other in enumerate((a, b))
    }
    shared = overlap(found[0, 0], found[1, 1])
    scores = {key: ndcg(places, wanted) for key, places in found.items()}
    names = [evidence.backend for evidence in pair]
    retrieval = [Retrieval(names[j], names[j], float(scores[j, j].mean())) for j in (0, 1)]
    rows = [_overlap_row(shared, len(asked), len(documents))]
    for j, i in ((0, 1), (1, 0)):
        # Questions about one passage are hard or easy together: they are not so many independent ones.
        lost = clustered_mean((scores[i, j] - scores[j, j]).tolist(), wanted)
        across = Retrieval(names[j], names[i], float(scores[i, j].mean()), lost.estimate, lost.low, lost.high)
        retrieval.append(across)
        rows.append(_cross_row(across))
    return shared, tuple(retrieval), rows


def _overlap_row(shared: float, queries: int, documents: int) -> CheckRow:
    figures = f"{shared:.1%} of the {DEPTH} nearest of {documents} passages are the same, {queries:,} queries"
    if shared >= OVERLAP.good:
        return CheckRow("neighbours", None, Outcome.OK, figures)
    outcome = Outcome.LIMIT if shared >= OVERLAP.bad else Outcome.BAD
    return CheckRow("neighbours", None, outcome, f"only {figures}")


def _cross_row(across: Retrieval) -> CheckRow:
    figures = (
        f"documents of {across.documents}, queries of {across.queries}: NDCG@{DEPTH} {across.ndcg:.3f}, "
        f"{across.difference:+.4f} against {across.documents} alone"
    )
    if across.low is None or across.high is None:
        return CheckRow("cross-index", None, Outcome.UNKNOWN, f"too few passages to tell: {figures}")
    figures += f" ({across.low:+.4f} to {across.high:+.4f})"
    if across.low >= -CROSS.good:
        return CheckRow("cross-index", None, Outcome.OK, figures)
    if across.high < -CROSS.bad:
        return CheckRow("cross-index", None, Outcome.BAD, f"search gets worse with {figures}")
    return CheckRow("cross-index", None, Outcome.UNKNOWN, f"too few queries to tell: {figures}")
