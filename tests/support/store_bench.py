"""A store in a folder of its own, on a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from embedctl.records import Provenance, Sample
from embedctl.settings import HistorySettings
from embedctl.store import Store

START = 1_760_000_400.0 // 600 * 600
"""Where a bucket of every tier begins."""


@dataclass
class Bench:
    """The store under test, its clock, and short ways to fill it."""

    path: Path
    now: float = START
    retention: HistorySettings = field(default_factory=HistorySettings)
    opened: list[Store] = field(default_factory=list)

    def open(self) -> Store:
        store = Store.open(self.path, retention=self.retention, clock=lambda: self.now)
        # Thousands of commits, and no power cut to survive: spare the disk.
        store._file._writer.execute("PRAGMA synchronous=OFF")
        self.opened.append(store)
        return store

    def record(
        self,
        store: Store,
        values: Callable[[int], dict[str, float]],
        seconds: range,
        provenance: dict[str, Provenance] | None = None,
    ) -> None:
        """One sample per second of `seconds` after START; the clock ends one second after the last."""
        for second in seconds:
            store.add_sample(Sample(START + second, values(second), provenance or {}))
            self.now = START + second + 1
