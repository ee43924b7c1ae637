"""Carries what the engine publishes from its threads to the screen, gathered into few deliveries.

Threads only put messages aside here. Of what is superseded (a sample, where a job stands, a backend's state)
the latest alone is kept; dated facts are all kept.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from embedctl.events import Message, Subscriber, superseding_key

Deliver = Callable[[tuple[Message, ...]], None]

FLUSH_EVERY: Final = 0.25
"""Seconds between two deliveries: no job shows more than four steps a second."""
FLUSH_SELDOM: Final = 4.0
"""The same for a slow line; less than the gap in time from which on a live line is drawn as broken."""

if TYPE_CHECKING:
    Subscribe = Callable[[Subscriber], Callable[[], None]]


class Bridge:
    """Delivers on the event loop that `open` was called on; the first message after a pause goes at once."""

    def __init__(self, deliver: Deliver, *, interval: float = FLUSH_EVERY) -> None:
        self._deliver = deliver
        self.interval = interval
        """Seconds between two deliveries at least."""
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, Message] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._delivered_at = float("-inf")
        self._unsubscribe: Callable[[], None] | None = None

    def open(self, subscribe: Subscribe) -> None:
        """Start to receive. Call it on the event loop's thread."""
        self._loop = asyncio.get_running_loop()
        self._unsubscribe = subscribe(self.put)

    def close(self) -> None:
        """Stop; what was not delivered yet is dropped."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._loop = None
            self._waiting.clear()

    def put(self, message: Message) -> None:
        """Put a message aside. Any thread; returns at once."""
        with self._lock:
            wake = not self._waiting
            key = superseding_key(message)
            self._waiting.pop(key, None)  # so that the order is that of the latest arrivals
            self._waiting[key] = message
            loop = self._loop
        if wake and loop is not None:
            with suppress(RuntimeError):  # the loop was closed in between
                loop.call_soon_threadsafe(self._schedule)

    def _schedule(self) -> None:
        if self._loop is None:
            return
        due = self._delivered_at + self.interval
        if due <= self._loop.time():
            self._flush()
        else:
            self._timer = self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        with self._lock:
            messages = tuple(self._waiting.values())
            self._waiting.clear()
        if messages and self._loop is not None:
            self._delivered_at = self._loop.time()
            self._deliver(messages)
