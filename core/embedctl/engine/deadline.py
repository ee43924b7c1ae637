"""How long a request may still take, and waiting no longer than that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from embedctl.progress import CancelToken

T = TypeVar("T")


class Deadline:
    """The end of a request's time, fixed when it came."""

    def __init__(self, seconds: float | None, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`seconds` from now; None: no end."""
        self.seconds = seconds
        self._monotonic = monotonic
        self._ends = None if seconds is None else monotonic() + seconds

    def left(self) -> float | None:
        """Seconds that are left, 0 when there are none; None: no end."""
        return None if self._ends is None else max(0.0, self._ends - self._monotonic())

    @property
    def passed(self) -> bool:
        return self.left() == 0


def wait_for(future: Future[T], deadline: Deadline, cancel: CancelToken | None) -> T:
    """The future's result.

    Raises:
        TimeoutError: The deadline passed first; the future's work goes on.
        Cancelled: `cancel` was set first; the future's work goes on.
    """
    if cancel is None:
        return future.result(deadline.left())
    woken = threading.Event()
    future.add_done_callback(lambda _: woken.set())
    cancel.on_cancel(woken.set)
    if not woken.wait(deadline.left()):
        raise TimeoutError
    cancel.raise_if_cancelled()
    return future.result(0)
