"""Starting something dead again, with growing pauses, until it stays up or there is no point."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from embedctl.progress import CancelToken

PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)
"""Before each attempt; after the last one it stays down."""
STABLE_S: Final = 300.0
"""What has stayed up for so long starts the pauses anew when it dies."""


class Timer(Protocol):
    def cancel(self) -> None: ...


After = Callable[[float, Callable[[], None]], Timer]
"""Calls a function after so many seconds, on a thread of its own."""


def start_timer(seconds: float, call: Callable[[], None]) -> Timer:
    """The `After` of the real world."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


@dataclass(frozen=True, slots=True)
class Attempt:
    number: int
    """From 1 on."""
    pause: float
    """Seconds until it begins."""

    def __str__(self) -> str:
        return f"restart {self.number} of {len(PAUSES_S)} in {self.pause:g} s"


class Restarts:
    """Counts attempts and owns the timer of the next one.

    Args:
        attempt: Tries once, on the timer's thread; the token says when the try is no longer wanted.
        after: Starts the timer.
    """

    def __init__(self, attempt: Callable[[CancelToken], None], *, after: After) -> None:
        self._attempt = attempt
        self._after = after
        self._lock = threading.Lock()
        self._made = 0
        self._next: tuple[Timer, CancelToken] | None = None

    @property
    def pending(self) -> bool:
        """An attempt is due or runs."""
        return self._next is not None

    @property
    def made(self) -> int:
        return self._made

    def schedule(self) -> Attempt | None:
        """Start the timer of the next attempt; None when there were enough."""
        with self._lock:
            if self._made >= len(PAUSES_S):
                self._next = None
                return None
            attempt = Attempt(self._made + 1, PAUSES_S[self._made])
            self._made += 1
            cancel = CancelToken()
            self._next = (self._after(attempt.pause, lambda: self._attempt(cancel)), cancel)
            return attempt

    def settled(self) -> None:
        """The attempt has worked, or there was nothing to try.

        The count stays, in case it dies again at once.
        """
        self._next = None

    def stayed_up(self, seconds: float) -> None:
        """It has just died after serving for so long."""
        if seconds >= STABLE_S:
            self._made = 0

    def take_over(self) -> bool:
        """Cancel what is due: the caller tries now. Says whether something was; else it counts anew."""
        with self._lock:
            due, self._next = self._next, None
            if due is None:
                self._made = 0
        if due is not None:
            timer, cancel = due
            timer.cancel()
            cancel.cancel()
        return due is not None

    def forget(self) -> None:
        """Cancel what is due or runs, and count anew."""
        self.take_over()
        with self._lock:
            self._made = 0
