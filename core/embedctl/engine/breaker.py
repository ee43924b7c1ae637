"""A circuit breaker: what fails again and again is not tried at each request."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from embedctl.errors import EmbedctlError

PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""After so many failures in a row; the last one again and again."""
_FORGOTTEN_S: Final = 300.0
"""A failure so long after the end of the last pause is the first of a new row."""


class Breaker:
    """Counts failures in a row; within the pause after one, the last failure is the answer. Thread-safe."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._row = 0
        self._until = 0.0
        self._last: EmbedctlError | None = None

    def raise_if_open(self) -> None:
        """Raise the last failure anew while its pause lasts."""
        with self._lock:
            last, left = self._last, self._until - self._monotonic()
        if last is not None and left > 0:
            again = f"the next attempt is due in {math.ceil(left)} s"
            raise type(last)(last.what, why=last.why, remedy="; ".join(filter(None, (again, last.remedy))))

    def failed(self, error: EmbedctlError) -> None:
        with self._lock:
            now = self._monotonic()
            if now - self._until > _FORGOTTEN_S:
                self._row = 0
            self._until = now + PAUSES_S[min(self._row, len(PAUSES_S) - 1)]
            self._row += 1
            self._last = error

    def succeeded(self) -> None:
        with self._lock:
            self._row, self._last = 0, None
