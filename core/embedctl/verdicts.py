"""What the interval of a ratio decides: the same for the lab and for every face. Pure."""

from __future__ import annotations

import math
from typing import Final, Literal

from embedctl.records import Interval

THRESHOLD: Final = 1.05
"""A difference under 5 % matters to nobody."""
QUALITY_THRESHOLD: Final = 0.01
"""Of a difference of NDCG and the like."""
JUDGED_BY: Final = f"judged by: the whole interval beyond {THRESHOLD:g} times as fast, or as slow"
"""Beside the verdicts on ratios within one run."""
_BEYOND: Final = "judged by: the whole interval beyond"
CHANGES_JUDGED_BY: Final = (
    f"{_BEYOND} {THRESHOLD:g}×, or 1/{THRESHOLD:g}; of a quality ±{QUALITY_THRESHOLD:g}"
)
"""Beside the verdicts on two runs."""

Verdict = Literal["faster", "slower", "no difference that matters", "undecided"]


def verdict(ratio: Interval, *, threshold: float = THRESHOLD) -> Verdict:
    """The interval of "times as fast" against a threshold."""
    if ratio.low is None or ratio.high is None:
        return "undecided"
    if ratio.low > threshold:
        return "faster"
    if ratio.high < 1 / threshold:
        return "slower"
    if ratio.low >= 1 / threshold and ratio.high <= threshold:
        return "no difference that matters"
    return "undecided"


def times_as_long(ratio: Interval, *, threshold: float = THRESHOLD) -> float | None:
    """How many times as much must be measured until the verdict is decided, about; None if nobody can tell.

    By the interval's width on a logarithmic scale, which shrinks with the root of the time, and by how far
    the estimate is from the nearer edge.
    """
    if not ratio.low or not ratio.high or verdict(ratio, threshold=threshold) != "undecided":
        return None
    gap = abs(abs(math.log(ratio.estimate)) - math.log(threshold))
    half = max(math.log(ratio.high / ratio.estimate), math.log(ratio.estimate / ratio.low))
    return (half / gap) ** 2 if gap else None
