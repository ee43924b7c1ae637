"""How many texts of a bulk request a backend takes at a time, so that queries beside it stay quick."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from embedctl.gateway.admission import QUERY_TEXTS
from embedctl.records import BackendName, EmbedResult

LATELY_S: Final = 10.0
"""For so long after a query, bulk requests keep to small passes; without queries they take the largest."""
_KEPT: Final = 32
_LEAST: Final = 1
_SHARE: Final = 0.3
"""How long a pass may take, in queries that are alone: it also takes cores and bandwidth from the query."""


@dataclass(slots=True)
class _Known:
    """What was measured of one backend."""

    alone: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Seconds of queries that found the backend free of bulk."""
    text: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Seconds that one text cost in a bulk request."""
    query_at: float = float("-inf")


class Pace:
    """A query waits for the pass that runs before it.

    So while queries come, a pass is kept to a third of the time of a query that is alone. On a GPU that is
    many texts, on a CPU a few. Thread-safe.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[BackendName, _Known] = {}
        self._latest: BackendName | None = None

    def asked(self, texts: int, backend: BackendName | None) -> int | None:
        """A request comes; how many of its texts a pass may have (None: the backend's own choice)."""
        with self._lock:
            name = backend or self._latest
            if name is None:
                return None
            known = self._known.setdefault(name, _Known())
            if texts <= QUERY_TEXTS:
                known.query_at = self._monotonic()
                return None
            if self._monotonic() - known.query_at > LATELY_S or not known.alone or not known.text:
                return None
            # The best pace that was seen: that of small passes would make the next ones smaller still.
            return max(_LEAST, int(_SHARE * statistics.median(known.alone) / min(known.text)))

    def answered(self, result: EmbedResult, texts_beside: int) -> None:
        """A request was answered while the backend had so many texts of other requests."""
        texts = len(result.vectors)
        with self._lock:
            self._latest = result.backend
            known = self._known.setdefault(result.backend, _Known())
            if result.seconds <= 0:  # no clock is that fine: nothing to learn
                return
            if texts > QUERY_TEXTS:
                known.text.append(result.seconds / (texts + texts_beside))
            elif texts_beside <= QUERY_TEXTS:
                known.alone.append(result.seconds)
