"""Messages on their way to one client: put aside by the engine's threads, taken by one that may be slow."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final

from embedctl.events import Message, superseding_key

_MOST: Final = 1_000
"""Messages that wait at most; beyond, the oldest goes."""


class Mailbox:
    """Of what is superseded (a sample, where a job stands) the latest alone waits; dated facts all do."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, Message] = {}
        self._skipped = 0
        self._ending = False

    def put(self, message: Message) -> None:
        """Put a message aside. Any thread; returns at once."""
        key = superseding_key(message)
        with self._changed:
            if self._ending:
                return
            if self._waiting.pop(key, None) is not None:  # popped, so that the order is that of the arrivals
                self._skipped += 1
            elif len(self._waiting) >= _MOST:
                del self._waiting[next(iter(self._waiting))]
                self._skipped += 1
            self._waiting[key] = message
            self._changed.notify()

    def take(self, timeout: float | None = None) -> tuple[Message, int] | None:
        """Wait for the oldest message; with it, how many were left out before it. None: no more comes.

        Raises:
            TimeoutError: None came within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._ending, timeout):
                raise TimeoutError("no message")
            if not self._waiting:
                return None
            message = self._waiting.pop(next(iter(self._waiting)))
            skipped, self._skipped = self._skipped, 0
            return message, skipped

    def finish(self) -> None:
        """Take in nothing more: once what waits is taken, `take` returns None."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()

    def close(self) -> None:
        """Finish, and drop what waits."""
        with self._changed:
            self._waiting.clear()
        self.finish()
