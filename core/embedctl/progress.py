"""How long work tells where it stands, and how it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from embedctl.errors import Cancelled
from embedctl.records import ProgressItem


class CancelToken:
    """A wish to stop, set by one thread and seen by another."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        """Set the wish and run the callbacks once. Safe to call again."""
        with self._lock:
            if self._event.is_set():
                return
            self._event.set()
            callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when cancelled; at once if that has already happened.

        Returns:
            Takes the callback off again. A call that ends before its token does so, since one token may serve
            millions of calls.
        """
        key = object()
        with self._lock:
            waiting = not self._event.is_set()
            if waiting:
                self._callbacks[key] = callback
        if not waiting:
            callback()

        def take_off() -> None:
            with self._lock:
                self._callbacks.pop(key, None)

        return take_off

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if the wish was set."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> bool:
        """Pause for at most `seconds`; true as soon as the wish is set."""
        return self._event.wait(seconds)


class Progress(Protocol):
    """Where a job tells its progress. Calls are cheap: the receiver coalesces them."""

    def __call__(
        self,
        step: str,
        *,
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        items: tuple[ProgressItem, ...] = (),
    ) -> None:
        """Say which step runs now and, where it can be counted, how much of it is done.

        `unit` is "bytes", "texts", "requests", "seconds" (planned ones) or "" (a plain count).
        """


def silent(
    step: str,
    *,
    done: float | None = None,
    total: float | None = None,
    unit: str = "",
    items: tuple[ProgressItem, ...] = (),
) -> None:
    """A `Progress` that nobody listens to."""
