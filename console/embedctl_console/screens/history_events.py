"""Events beyond those that a window shows, found by asking the engine for no more than it takes."""

from __future__ import annotations

from typing import Final

from embedctl.engine import EngineFacade
from embedctl.records import Event

_APART: Final = 1e-6
"""Seconds from which on two moments differ: as Unix seconds, floats tell a quarter of that apart."""
_PAGE: Final = 1_000
"""Events asked for at once."""


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
