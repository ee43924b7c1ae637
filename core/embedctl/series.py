"""Numbers over time, as the charts draw them and the store returns them. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedctl.records import Event

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over time; the four arrays have one length, shape (n,), times ascending.

    A raw reading has `low == mean == high`. Time without a reading has no entry: two neighbours further
    apart than `gap` seconds are not connected.
    """

    key: str
    at: Floats
    """Unix seconds; the start of the bucket for a thinned tier."""
    low: Floats
    mean: Floats
    high: Floats
    gap: float
    """Seconds between neighbours above which the line breaks."""

    def __len__(self) -> int:
        return len(self.at)

    @classmethod
    def empty(cls, key: str, gap: float = 3.0) -> Series:
        nothing = np.empty(0, dtype=np.float64)
        return cls(key, nothing, nothing, nothing, nothing, gap)


@dataclass(frozen=True, slots=True)
class History:
    """A window of recorded time."""

    since: float
    until: float
    resolution: float
    """Seconds per entry of the tier that was read."""
    series: Mapping[str, Series]
    """By metric key; a metric without a reading in the window is present and empty."""
    events: tuple[Event, ...]
