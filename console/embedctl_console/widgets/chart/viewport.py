"""The window of time that a chart shows, and how zoom and pan move it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_SPAN: Final = 10.0
"""Seconds; samples are taken about once per second, so a narrower window shows nothing more."""
MOST_SPAN: Final = 2 * 365 * 86_400.0
"""Seconds; nothing is kept longer than two years."""


@dataclass(frozen=True, slots=True)
class Viewport:
    """The half-open window [since, until) in Unix seconds."""

    since: float
    until: float

    def __post_init__(self) -> None:
        if not self.until > self.since:
            raise ValueError(f"a window ends after it begins, not {self.since} to {self.until}")

    @property
    def span(self) -> float:
        return self.until - self.since

    def share(self, at: float) -> float:
        """Where `at` lies in the window: 0 at its begin, 1 at its end."""
        return (at - self.since) / self.span

    def holds(self, at: float) -> bool:
        return self.since <= at < self.until

    def zoomed(self, factor: float, at: float) -> Viewport:
        """The span divided by `factor` (above 1: closer), with `at` staying where it is on the screen."""
        span = min(max(self.span / factor, LEAST_SPAN), MOST_SPAN)
        since = at - span * self.share(at)
        return Viewport(since, since + span)

    def panned(self, seconds: float) -> Viewport:
        return Viewport(self.since + seconds, self.until + seconds)

    def ending_by(self, latest: float) -> Viewport:
        """The same span, moved back if it would reach beyond `latest`."""
        return self if self.until <= latest else Viewport(latest - self.span, latest)

    def in_steps(self, columns: int) -> Viewport:
        """Moved by less than one column, so that the columns' bounds are multiples of their width.

        A live window then moves by whole columns: entries do not wander between columns from frame to frame,
        and only the newest column changes until it is full.
        """
        width = self.span / columns
        until = -(-self.until // width) * width
        return Viewport(until - self.span, until)
