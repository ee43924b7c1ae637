"""What an engine is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedctl.backends.base import Backend
from embedctl.engine.journal import Journal
from embedctl.events import EventBus
from embedctl.progress import CancelToken, Progress
from embedctl.records import BackendName, TuneReport

if TYPE_CHECKING:  # heavy to import, and a test may put others in their place
    from embedctl.hub import ModelHub
    from embedctl.store import Store
    from embedctl.telemetry.probe import Probe


@dataclass(frozen=True, slots=True)
class Parts:
    """What the engine is made of; made by `open_engine`, or by a test."""

    bus: EventBus
    store: Store
    journal: Journal
    probe: Probe
    hub: ModelHub
    backends: Mapping[BackendName, Backend]
    pull: Callable[[Progress, CancelToken], None]
    """Fetches the Ollama server's own copy of the model."""
    tune: Callable[[Progress, CancelToken], TuneReport]
    """Measures the native backend's token budget; it has to be loaded."""
    at_close: tuple[Callable[[], None], ...] = ()
    """Ends what was started for this engine alone, such as the demo's servers."""
