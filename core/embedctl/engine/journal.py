"""Events: stored first, then published."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from embedctl.errors import EmbedctlError, StoreError, UsageError
from embedctl.events import EventBus, EventRecorded
from embedctl.records import BackendName, Event, Severity

if TYPE_CHECKING:
    from embedctl.store import Store

log = logging.getLogger(__name__)

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LATEST: Final = 253_402_300_800.0
"""The year 10000, which no calendar shows."""


def this_process() -> dict[str, Any]:
    """What tells whether a start belongs to the stop before it, and whether the machine ran all the while."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = None
    return {"pid": os.getpid(), "boot": boot}


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

    def annotate(self, at: float, text: str) -> Event:
        """Keep a note of the user's about a moment; where it cannot be kept, that is told.

        Raises:
            UsageError: There is no text, or the moment is none.
            StoreError: It could not be stored.
        """
        line = " ".join(text.split())
        if not line:
            raise UsageError("There is no text to note", remedy="write a few words about that moment")
        if not 0 <= at < _LATEST:
            raise UsageError(f"{at} is no moment on the time line", remedy="give it in Unix seconds")
        event = self._store.add_event(Event(at, "note", line, detail={"by": "user"}))
        self._bus.publish(EventRecorded(event))
        return event

    def add_download(
        self, repo: str, revision: str | None, started: float, size: int | None, outcome: str
    ) -> None:
        """Keep how a download that ends now went."""
        try:
            self._store.add_download(repo, revision, started, self._clock(), size, outcome)
        except StoreError as error:
            log.error("download not stored: %s", error)
