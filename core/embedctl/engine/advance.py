"""When a trial's share goes on to the next step by itself, and when it goes back to none."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Final

from embedctl.records import Trial

STEPS: Final = (0.05, 0.5, 1.0)
"""The shares that an automatic trial goes through."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the share that a trial has made by itself."""

    trial: Trial
    """As it is from now on."""
    before: float
    """The share until now."""
    fault: str
    """Why it went back; empty when it went on."""

    @property
    def title(self) -> str:
        if self.fault:
            return f"trial of {self.trial.candidate} rolled back from {self.before:.0%}"
        return f"trial of {self.trial.candidate}: {self.before:.0%} → {self.trial.share:.0%}"


class Advance:
    """A trial, and what its present step has shown. Thread-safe."""

    def __init__(self, trial: Trial) -> None:
        self._lock = threading.Lock()
        self.trial = trial
        self.good = 0
        """Requests compared in this step, all of them without a fault."""
        self.rolled_back = ""
        """Why the share went back to 0; empty when it did not."""

    def begin(self, trial: Trial) -> None:
        """Go on with other shares."""
        with self._lock:
            self.trial, self.good, self.rolled_back = trial, 0, ""

    def compared(self) -> Move | None:
        """A request was compared, and both backends agree."""
        with self._lock:
            trial = self.trial
            if trial.advance_after is None:
                return None
            self.good += 1
            share = next((step for step in STEPS if step > trial.share), None)
            if self.good < trial.advance_after or share is None:
                return None
            self.trial, self.good = replace(trial, share=share), 0
            return Move(self.trial, trial.share, "")

    def failed(self, why: str) -> Move | None:
        """The candidate failed, or does not agree. Only an automatic trial goes back, and only once."""
        with self._lock:
            trial = self.trial
            if trial.advance_after is None:
                return None
            self.trial, self.good, self.rolled_back = replace(trial, share=0.0, advance_after=None), 0, why
            return Move(self.trial, trial.share, why)
