"""What an engine is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedctl.backends.base import Backend
from embedctl.engine.journal import Journal
from embedctl.errors import UsageError
from embedctl.events import EventBus
from embedctl.progress import CancelToken, Progress
from embedctl.records import BackendName, TuneReport

if TYPE_CHECKING:  # heavy to import, and a test may put others in their place
    from embedctl.hub import ModelHub
    from embedctl.lab.coexist import Generating
    from embedctl.store import Store
    from embedctl.telemetry.probe import Probe


def _no_set(repo: str, *_: object) -> tuple[Path, Path]:
    raise UsageError(
        f"{repo} cannot be fetched here",
        why="this engine's Hub holds no data sets",
        remedy="use the built-in sets (xquad), or a folder in BEIR's layout",
    )


def _no_variant(_: object) -> Backend:
    raise UsageError("This engine has no native backend that could be varied")


def _no_language_model(_: object) -> AbstractContextManager[Generating]:
    raise UsageError("This engine has no server with a language model")


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
    native_with: Callable[[Mapping[str, Any]], Backend] = _no_variant
    """Another native backend, under changed settings of `[native]`; whoever made it closes it."""
    language_model: Callable[[str | None], AbstractContextManager[Generating]] = _no_language_model
    """A language model of the Ollama server, by tag or the smallest."""
    fetch_set: Callable[[str, str | None, str, CancelToken], tuple[Path, Path]] = _no_set
    """A retrieval set of the Hub, by repository, revision and split: the folder of its texts, and the file
    that says what answers what."""
    at_close: tuple[Callable[[], None], ...] = ()
    """Ends what was started for this engine alone, such as the demo's servers."""
