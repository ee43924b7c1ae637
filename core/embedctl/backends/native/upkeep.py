"""Keeping the worker's memory figures fresh beside its requests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from embedctl.errors import BackendError

if TYPE_CHECKING:
    from embedctl.worker.client import WorkerClient
    from embedctl.worker.protocol import WorkerMemory

_EVERY_S: Final = 1.0


class MemoryNews:
    """Has a worker report its memory, at most once a second, without waiting for it. Thread-safe.

    Args:
        keep: Gets each report, on the worker's thread.
    """

    def __init__(self, keep: Callable[[WorkerMemory], None]) -> None:
        self._keep = keep
        self._lock = threading.Lock()
        self._asked = 0.0

    def ask(self, client: WorkerClient) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._asked < _EVERY_S:
                return
            self._asked = now
        with contextlib.suppress(BackendError):
            client.memory_later(self._keep)
