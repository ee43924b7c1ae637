"""Where the worker leaves requests: with an encoder that takes several, else in a queue before it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from embedctl.encoder.base import Answer, Encoded, Encoder
from embedctl.errors import Cancelled


@runtime_checkable
class Desk(Protocol):
    """Takes requests without making their sender wait; one thread at a time works them off.

    `FastEncoder` is one, and puts the texts of several requests into one batch.
    """

    def submit(
        self,
        key: int,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> bool:
        """Leave a request; true if nobody works, and the caller has to call `drive` now."""

    def drive(
        self, deliver: Callable[[list[Answer]], None], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Work until all that was submitted is answered.

        Args:
            deliver: Gets the answers. Must not raise.
            meanwhile: Called again and again while a device works by itself; may `submit`.
        """


@dataclass(frozen=True, slots=True)
class _Request:
    key: int
    texts: Sequence[str]
    batch_size: int | None
    normalize: bool
    cancelled: Callable[[], bool] | None


class OneByOne:
    """A `Desk` before an encoder that takes one request at a time."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._waiting: deque[_Request] = deque()
        self._working = False

    def submit(
        self,
        key: int,
        texts: Sequence[str],
        *,
        batch_size: int | None = None,
        normalize: bool = True,
        cancelled: Callable[[], bool] | None = None,
    ) -> bool:
        """See `Desk.submit`."""
        with self._lock:
            self._waiting.append(_Request(key, texts, batch_size, normalize, cancelled))
            first, self._working = not self._working, True
        return first

    def drive(
        self, deliver: Callable[[list[Answer]], None], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """See `Desk.drive`."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._working = False
                    return
                request = self._waiting.popleft()
            deliver([(request.key, self._encode(request))])

    def _encode(self, request: _Request) -> Encoded | Exception:
        try:
            if request.cancelled is not None and request.cancelled():
                raise Cancelled
            return self._encoder.encode(
                request.texts,
                batch_size=request.batch_size,
                normalize=request.normalize,
                cancelled=request.cancelled,
            )
        except Exception as error:
            return error
