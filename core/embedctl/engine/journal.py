"""Events: stored first, then published."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from embedctl.errors import EmbedctlError, StoreError
from embedctl.events import EventBus, EventRecorded
from embedctl.records import BackendName, Event, Severity

if TYPE_CHECKING:
    from embedctl.store import Store

log = logging.getLogger(__name__)


class Journal:
    """Puts events on the time line and on the bus."""

    def __init__(self, store: Store, bus: EventBus, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock

    def add(
        self,
        kind: str,
        title: str,
        backend: BackendName | None = None,
        severity: Severity = Severity.INFO,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that something happened now."""
        self.record(Event(self._clock(), kind, title, backend, severity, detail or {}))

    def add_failure(
        self, title: str, error: EmbedctlError, backend: BackendName | None = None, *, during: str
    ) -> None:
        """Record that `during` (a kind of event) failed."""
        detail = {"during": during, "what": error.what, "why": error.why, "remedy": error.remedy}
        self.add("error", title, backend, Severity.ERROR, detail)

    def record(self, event: Event) -> None:
        """Store and publish. A store that cannot take the event costs the record, not the work."""
        try:
            event = self._store.add_event(event)
        except StoreError as error:
            log.error("event not stored: %s", error)
        self._bus.publish(EventRecorded(event))

    def add_download(
        self, repo: str, revision: str | None, started: float, size: int | None, outcome: str
    ) -> None:
        """Keep how a download that ends now went."""
        try:
            self._store.add_download(repo, revision, started, self._clock(), size, outcome)
        except StoreError as error:
            log.error("download not stored: %s", error)
