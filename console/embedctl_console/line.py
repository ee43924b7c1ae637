"""Judges the line to the terminal by how long an answer takes. Pure: times in seconds, of any one clock."""

from __future__ import annotations

from enum import Enum
from typing import Final

FIRST_WAIT_S: Final = 1.0
"""A terminal that has never answered is waited for so long at the first question …"""
SECOND_WAIT_S: Final = 8.0
"""… and so long at the second; then it counts as one that does not answer."""
LOST_S: Final = 30.0
"""One that does answer is waited for so long; then the answer was lost on the way."""
BEHIND_S: Final = 1.0
"""An answer that took so long, twice in succession, tells a slow line …"""
FAR_BEHIND_S: Final = 3.0
"""… and one that took so long does by itself, as does a first one that took the shorter time."""


class Speed(Enum):
    UNKNOWN = "unknown"
    FAST = "fast"
    SLOW = "slow"


class Line:
    def __init__(self) -> None:
        self.speed = Speed.UNKNOWN
        self.asked_at: float | None = None
        """When the question was sent that is not answered yet."""
        self._last_asked = float("-inf")
        self._answered = False
        self._unanswered = 0
        self._late = 0

    @property
    def silent(self) -> bool:
        """Whether the terminal does not answer such questions."""
        return not self._answered and self._unanswered >= 2

    def wait_s(self) -> float:
        """How long to wait for the answer before going on without."""
        if self._answered:
            return LOST_S
        return SECOND_WAIT_S if self._unanswered else FIRST_WAIT_S

    def worth_asking(self, at: float, every: float) -> bool:
        """Whether to ask now, the last question being `every` seconds ago at least."""
        return not self.silent and self.asked_at is None and at - self._last_asked >= every

    def asked(self, at: float) -> None:
        self.asked_at = self._last_asked = at

    def answered(self, at: float) -> None:
        if self.silent:  # it does answer, but later than it was waited for
            self.speed = Speed.SLOW
        self._answered = True
        if self.asked_at is None:
            return
        late = at - self.asked_at
        self.asked_at = None
        self._late = self._late + 1 if late >= BEHIND_S else 0
        if late >= FAR_BEHIND_S or self._late >= 2 or (self._late and self.speed is Speed.UNKNOWN):
            self.speed = Speed.SLOW
        elif self.speed is Speed.UNKNOWN:
            self.speed = Speed.FAST

    def look(self, at: float) -> None:
        """Judge by a question that is still open."""
        if self.asked_at is None:
            return
        since = at - self.asked_at
        if self._answered and since >= FAR_BEHIND_S:
            self.speed = Speed.SLOW
        if since >= self.wait_s():
            self.asked_at = None
            self._unanswered += 1
            if self.silent and self.speed is Speed.UNKNOWN:
                self.speed = Speed.FAST
