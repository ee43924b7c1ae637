"""The threads that wait for the engine, one for each request in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue


class Threads:
    """Runs what it is given, and nothing else; `run` and `close` are called by one thread, the event loop's.

    `concurrent.futures` makes a future with a condition for each piece of work and settles it once the work
    has told its result: meanwhile the woken event loop waits for the interpreter's lock.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0

    def run(self, work: Callable[[], None], *, at_once: int) -> None:
        """Have `work`, which never raises, called in a thread; `at_once` pieces are under way, with this one.

        Raises:
            RuntimeError: There is no thread, and none can be started.
        """
        if self._started < at_once:
            try:
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
                self._started += 1
            except RuntimeError:
                if not self._started:
                    raise
        self._work.put(work)

    def close(self) -> None:
        """Let the threads go: what waits is not begun, and what they still do is not waited for."""
        with suppress(Empty):
            while True:
                self._work.get_nowait()
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # it holds a request's texts and vectors
