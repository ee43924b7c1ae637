"""What is known of the native backend, told as the records that every backend tells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl.errors import BackendError, BackendNotLoadedError, WorkerCrashedError
from embedctl.records import BackendState, BackendStatus, Fingerprint
from embedctl.worker.protocol import WorkerMemory, WorkerReady

if TYPE_CHECKING:
    from embedctl.settings import ModelSettings, NativeSettings

NAME = "native"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Known:
    """One moment's knowledge; everything about the worker is None while there is none."""

    state: BackendState = BackendState.UNKNOWN
    detail: str = ""
    remedy: str = ""
    ready: WorkerReady | None = None
    folder: Path | None = None
    """What the worker has loaded."""
    content: str | None = None
    """Hash over that folder, if it is one of the user's."""
    ready_since: float | None = None
    memory: WorkerMemory | None = None


class Records:
    """The records of what is known: the same one while that is the same, for every request looks at them."""

    def __init__(self, model: ModelSettings, settings: NativeSettings) -> None:
        self._model = model
        self._settings = settings
        self._told: tuple[Known, int | None, BackendStatus] | None = None
        self._printed: tuple[WorkerReady | None, Fingerprint] | None = None
        """The last status and fingerprint, each with what it was made of."""

    def status(self, known: Known, pid: int | None) -> BackendStatus:
        told = self._told
        if told is None or told[0] is not known or told[1] != pid:
            told = (known, pid, _status_of(known, self._model, pids_of(pid, known.memory)))
            self._told = told
        return told[2]

    def fingerprint(self, known: Known) -> Fingerprint:
        printed = self._printed
        if printed is None or printed[0] is not known.ready:
            printed = self._printed = (known.ready, _fingerprint_of(known, self._model, self._settings))
        return printed[1]


def pids_of(worker: int | None, memory: WorkerMemory | None) -> frozenset[int]:
    """The worker and those of its children that it last reported."""
    if worker is None:
        return frozenset()
    return frozenset({worker, *(memory.pids if memory else ())})


def _status_of(known: Known, model: ModelSettings, pids: frozenset[int]) -> BackendStatus:
    ready = known.ready
    claimed, source = _claim(known.memory)
    return BackendStatus(
        name=NAME,
        state=known.state,
        detail=known.detail,
        remedy=known.remedy,
        model=model.repo,
        revision=_revision(model, known),
        version=_version(ready),
        device=_device(ready),
        dtype=ready.dtype if ready else None,
        attention=ready.attention if ready else None,
        dimension=ready.dimension if ready else None,
        max_tokens=ready.max_tokens if ready else None,
        pids=pids,
        claimed_bytes=claimed,
        claimed_source=source,
        ready_since=known.ready_since,
        notes=ready.notes if ready else (),
    )


def _fingerprint_of(known: Known, model: ModelSettings, settings: NativeSettings) -> Fingerprint:
    """Driver and machine are the engine's to add: the worker knows neither."""
    ready = known.ready
    return Fingerprint(
        backend=NAME,
        backend_version=_version(ready),
        model=model.repo,
        revision=_revision(model, known),
        dtype=ready.dtype if ready else None,
        pooling=ready.pooling if ready else None,
        normalized=True,
        max_tokens=ready.max_tokens if ready else settings.max_tokens,
        dimension=ready.dimension if ready else None,
        device=_device(ready),
        attention=ready.attention if ready else None,
        torch=ready.versions["torch"] if ready else None,
        driver=None,
        machine=None,
        options={
            "batch_size": settings.batch_size,
            "threads": settings.threads,
            **({"encoder": ready.encoder, **ready.versions} if ready else {}),
        },
    )


def not_serving(known: Known, *, restarting: bool) -> BackendError:
    """The error for a request that comes while no worker serves."""
    if restarting:
        return WorkerCrashedError(
            "The native worker is being restarted", why=known.detail, remedy="try again in a few seconds"
        )
    return BackendNotLoadedError(
        "The native backend is not loaded", why=known.detail or f"it is {known.state}", remedy="load it first"
    )


def _claim(memory: WorkerMemory | None) -> tuple[int | None, str | None]:
    if memory is None:
        return None, None
    if memory.reserved is not None:
        return memory.reserved, "torch's reserved bytes"
    return memory.rss, "the worker's resident set (torch keeps no count on a CPU)"


def _device(ready: WorkerReady | None) -> str | None:
    return f"{ready.device} ({ready.device_name})" if ready else None


def _version(ready: WorkerReady | None) -> str | None:
    if ready is None:
        return None
    return f"sentence-transformers {ready.versions['sentence-transformers']}, torch {ready.versions['torch']}"


def is_local(model: ModelSettings) -> bool:
    """Whether the model is a folder of the user's."""
    return Path(model.repo).expanduser().is_dir()


def _revision(model: ModelSettings, known: Known) -> str | None:
    """The commit: of the folder that was loaded, which bears its name, else of a setting that is one.

    A branch is none: what it stands for changes. A folder of the user's has a hash over its content instead.
    """
    if is_local(model):
        return known.content
    name = model.revision if known.folder is None else known.folder.name
    return name if _COMMIT.fullmatch(name) else None
