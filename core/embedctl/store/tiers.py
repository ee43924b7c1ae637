"""The resolutions in which samples are kept, and which of them a window is read from. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from embedctl.settings import HistorySettings

Part = Literal["min", "mean", "max", "n"]
PARTS: Final[tuple[Part, ...]] = ("min", "mean", "max", "n")


@dataclass(frozen=True, slots=True)
class Tier:
    """Samples at one resolution."""

    seconds: int
    finer: Tier | None
    """The tier that this one is made from; None for the samples as they were read."""

    @property
    def table(self) -> str:
        return f"sample_{self.seconds}s"

    @property
    def ms(self) -> int:
        return self.seconds * 1000

    def bucket(self, at_ms: int) -> int:
        """Start of the bucket that holds a moment, in Unix milliseconds."""
        return at_ms // self.ms * self.ms

    def keep_ms(self, retention: HistorySettings) -> int:
        """How long samples are kept at this resolution: never for less time than at the next finer one.

        Else the middle of the history would be read coarser than its older part.
        """
        hours = {
            1: retention.keep_seconds_h,
            10: retention.keep_10_seconds_d * 24,
            60: retention.keep_minutes_d * 24,
            600: retention.keep_10_minutes_d * 24,
            3600: retention.keep_10_minutes_d * 24,  # there to draw months quickly, not to last longer
        }
        own = int(hours[self.seconds] * 3_600_000)
        return own if self.finer is None else max(own, self.finer.keep_ms(retention))


RAW: Final = Tier(1, None)
_TENS: Final = Tier(10, RAW)
_MINUTES: Final = Tier(60, _TENS)
_TEN_MINUTES: Final = Tier(600, _MINUTES)
_HOURS: Final = Tier(3600, _TEN_MINUTES)
COARSER: Final = (_TENS, _MINUTES, _TEN_MINUTES, _HOURS)
TIERS: Final = (RAW, *COARSER)


def columns(tier: Tier, metric: str) -> tuple[str, ...]:
    """The columns that hold one metric in a tier's table."""
    return (metric,) if tier is RAW else tuple(f"{metric}_{part}" for part in PARTS)


def suited(span: float, points: int) -> Tier:
    """The coarsest tier that still gives about `points` entries over `span` seconds.

    Half as many pass for "about": an hour at 600 points is read as 360 entries of 10 s, not 3,600 of 1 s.
    """
    for tier in reversed(COARSER):
        if span / tier.seconds >= points / 2:
            return tier
    return RAW
