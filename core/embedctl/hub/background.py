"""Waiting for slow work in a way that lets a cancel through at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from embedctl.errors import Cancelled
from embedctl.progress import CancelToken

T = TypeVar("T")

_GRACE = 1.0
"""Seconds that cancelled work gets to end by itself before it is left behind."""


def run_cancellable(
    work: Callable[[], T], cancel: CancelToken, *, tick: Callable[[], None] | None = None, every: float = 0.1
) -> T:
    """Run `work` on a thread of its own and wait for it.

    Work that looks at `cancel` ends by itself. Work that cannot look, because it waits for a server that has
    gone quiet, is left behind after a second; it ends with its own time-out and its outcome is dropped.

    Args:
        work: What to do.
        cancel: The wish to stop.
        tick: Called about every `every` seconds, on the caller's thread, and once at the end.

    Raises:
        Cancelled: `cancel` was set before `work` was through.
        BaseException: Whatever `work` raised.
    """
    cancel.raise_if_cancelled()
    outcome: list[T] = []
    failure: list[BaseException] = []
    woken = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            woken.set()

    thread = threading.Thread(target=run, name="embedctl-hub", daemon=True)
    thread.start()
    cancel.on_cancel(woken.set)
    while not woken.wait(every):
        if tick:
            tick()
    if cancel.cancelled:
        thread.join(_GRACE)
        raise Cancelled
    thread.join()
    if tick:
        tick()
    if failure:
        raise failure[0]
    return outcome[0]
