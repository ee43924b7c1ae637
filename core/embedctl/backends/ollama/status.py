"""The Ollama backend's status from what was last seen and what this object has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedctl.backends.ollama.runner import Sighting
from embedctl.backends.ollama.view import View
from embedctl.errors import EmbedctlError, ModelMissingError
from embedctl.records import BackendState, BackendStatus, Fingerprint
from embedctl.settings import OllamaSettings

CLAIM_SOURCE = "Ollama /api/ps size_vram (leaves out the CUDA context)"


@dataclass(slots=True)
class Standing:
    """What this object has done with the model."""

    phase: BackendState | None = None
    """LOADING or UNLOADING while that runs."""
    failure: EmbedctlError | None = None
    """Why the last load failed, until another one succeeds."""
    loaded: bool = False
    """Requests may be sent: loaded by us, or seen in `/api/ps`."""
    ours: bool = False
    """It was this object that had the model loaded."""
    ready_since: float | None = None
    dimension: int | None = None
    """What the vectors must have; None: what the model's metadata say."""

    def gone(self) -> None:
        """The model is not loaded any more, whoever unloaded it."""
        self.loaded = self.ours = False
        self.ready_since = None


def status_of(
    tag: str,
    url: str,
    settings: OllamaSettings,
    view: View,
    now: Standing,
    sighting: Sighting | None,
) -> BackendStatus:
    """The status to show. `sighting` is None for a server on another machine."""
    running = view.running
    state, detail, remedy = _state(tag, url, view, now)
    return BackendStatus(
        name="ollama",
        state=state,
        detail=detail,
        remedy=remedy,
        model=tag,
        revision=view.digest,
        version=view.version,
        device=running.device if running else None,
        dtype=view.details.dtype if view.details else None,
        dimension=now.dimension or view.dimension,
        max_tokens=view.max_tokens(settings),
        pids=sighting.pids if sighting else frozenset(),
        claimed_bytes=running.size_vram if running else None,
        claimed_source=CLAIM_SOURCE if running and running.size_vram is not None else None,
        ready_since=now.ready_since,
        expires_at=running.expires_at if running else None,
        notes=_notes(url, settings, view, now, sighting),
        remote=sighting is None,
    )


def fingerprint_of(tag: str, view: View, status: BackendStatus, options: Mapping[str, int]) -> Fingerprint:
    """Driver and machine are the engine's to add; attention and torch are nothing that Ollama tells."""
    return Fingerprint(
        backend=status.name,
        backend_version=view.version,
        model=tag,
        revision=view.digest,
        dtype=status.dtype,
        pooling=view.details.pooling if view.details else None,
        normalized=True,
        max_tokens=status.max_tokens,
        dimension=status.dimension,
        device=status.device,
        attention=None,
        torch=None,
        driver=None,
        machine=None,
        options=dict(options),
    )


def load_notes(view: View, settings: OllamaSettings, *, on_demand: bool) -> tuple[str, ...]:
    """What a load's report says besides; `view` is the server before it. `on_demand`: keep_alive is 0."""
    notes = []
    shorter = view.shorter_context(settings)
    if shorter is not None:
        notes.append(
            f"another program had it loaded with a context of {shorter} tokens; it was loaded again with more"
        )
    if on_demand:
        notes.append("keep_alive is 0: Ollama unloads after every request and loads for the next")
    return tuple(notes)


def _state(tag: str, url: str, view: View, now: Standing) -> tuple[BackendState, str, str]:
    """State, detail and remedy."""
    if now.phase is not None:
        doing = "loading into" if now.phase is BackendState.LOADING else "unloading from"
        return now.phase, f"{doing} Ollama", ""
    if view.error is not None:
        missing = isinstance(view.error, ModelMissingError)
        state = BackendState.MODEL_MISSING if missing else BackendState.UNAVAILABLE
        return state, view.error.sentence, view.error.remedy
    if not view.looked:
        return BackendState.UNKNOWN, "not looked at yet", ""
    if now.failure is not None:
        return BackendState.FAILED, now.failure.sentence, now.failure.remedy
    if now.loaded:
        served = f"served by Ollama {view.version}" if view.version else "served by Ollama"
        return BackendState.READY, f"{served} at {url}", ""
    return BackendState.UNLOADED, f"{tag} is on the server and not loaded", ""


def _notes(
    url: str, settings: OllamaSettings, view: View, now: Standing, sighting: Sighting | None
) -> tuple[str, ...]:
    notes = []
    if sighting is None:
        notes.append(f"runs on another machine ({url}): its memory cannot be measured here")
    elif sighting.note:
        notes.append(sighting.note)
    if view.running is not None and now.phase is None:
        if not now.ours:
            notes.append("another program had it loaded; unloading takes it from that program too")
        shorter = view.shorter_context(settings)
        if shorter is not None:
            notes.append(f"loaded with a context of {shorter} tokens; our first request reloads it with more")
    return tuple(notes)


def why_lost(before: View, view: View, *, on_demand: bool) -> str:
    """Why a model that was loaded no longer is; empty while it is, or while nobody can say.

    `on_demand`: keep_alive is 0, so that not being loaded between requests is how it should be.
    """
    if isinstance(view.error, ModelMissingError):
        return "the model was removed from the server"
    if view.error is not None:
        return ""
    if before.digest and view.digest != before.digest:
        return "the model behind the tag was replaced"
    if view.running is None and not on_demand:
        return "keep_alive ended, or another program unloaded it"
    return ""
