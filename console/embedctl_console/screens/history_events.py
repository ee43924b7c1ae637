"""Events beyond those that a window shows, found by asking the engine for no more than it takes."""

from __future__ import annotations

from typing import Final

from embedctl.engine import EngineFacade
from embedctl.records import Event

_APART: Final = 1e-6
"""Seconds from which on two moments differ: as Unix seconds, floats tell a quarter of that apart."""
_PAGE: Final = 1_000
"""Events asked for at once."""


_LONGEST: Final = 3 * 3600.0
"""Seconds that work may have lasted whose event, recorded at its end, is looked for."""


def led_to(engine: EngineFacade, at: float) -> Event | None:
    """[slow] The event of the work that was under way at a moment, else the last event before it.

    Of a run within a switch, say, the shorter one.
    """
    ended_later = engine.events(since=at, until=at + _LONGEST, limit=_PAGE)
    under_way = [event for event in ended_later if event.at - _seconds(event) <= at]
    if under_way:
        return min(under_way, key=_seconds)
    return next(iter(engine.events(until=at, limit=1)), None)


def _seconds(event: Event) -> float:
    """How long what the event tells of had lasted; 0 if it does not say."""
    found = event.detail.get("seconds")
    return float(found) if isinstance(found, int | float) else 0.0


def event_beyond(engine: EngineFacade, at: float, direction: int) -> Event | None:
    """[slow] The first event after (1) or the last one before (-1) a moment, however many there are."""
    if direction < 0:
        return next(iter(engine.events(until=at - _APART, limit=1)), None)
    first, until = None, None
    while True:
        # The newest come first, so the one looked for is at the end of the last page.
        page = engine.events(since=at + _APART, until=until, limit=_PAGE)
        first = page[-1] if page else first
        if len(page) < _PAGE or page[-1].at == until:
            return first
        until = page[-1].at
