"""Which stage gets how much of the time that is left. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_SMALL: Final = (0.03, 0.02, 0.01, 0.0)
"""Of the time that is left: what wants no more is not shortened, for little would be won by it. The first of
these with which all fit."""


def allowed(wants: Sequence[float], leasts: Sequence[float], left: float) -> float:
    """Seconds for the first of the stages to come, so that none of them need be left out.

    What a stage wants beyond a small share of the time is shortened for all by the same factor. Where not
    even the least fits, the first gets its own: the later ones are missed less.

    Args:
        wants: What each stage takes in full, the first one first.
        leasts: What each takes at least.
        left: Seconds for all of them.

    Returns:
        Infinity where all fit.
    """
    if sum(wants) <= left:
        return math.inf
    floors: Sequence[float] = leasts
    for small in _SMALL:
        floors = [max(least, min(want, small * left)) for want, least in zip(wants, leasts, strict=True)]
        if sum(floors) <= left:
            break
    beyond = sum(max(0.0, want - floor) for want, floor in zip(wants, floors, strict=True))
    share = max(0.0, left - sum(floors)) / beyond if beyond else 0.0
    return floors[0] + share * max(0.0, wants[0] - floors[0])
