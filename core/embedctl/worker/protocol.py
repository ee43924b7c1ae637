"""What the engine and its worker say to each other, as records and as frames' headers.

Engine to worker: `load` (once, first), `embed`, `cancel`, `ping`, `memory`, `canary`, `tune`; the end
of the socket tells it to go.
Worker to engine: `step` (while loading), `ready` or `failed` (once), and per request `vectors`, `error`,
`pong`, `memory`, `canary` or `tune`, with the request's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedctl import errors
from embedctl.errors import BackendError, EmbedctlError, InvalidTextError
from embedctl.records import CanaryReport


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker loads, and how; the fields mean what `NativeSettings` says."""

    folder: str
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    batch_size: int = 32
    max_tokens: int | None = None
    threads: int | None = None
    token_budget: int | None = None
    """None: the one that was measured for this model and device, else the device's default."""
    budgets_file: str | None = None
    """Where measured budgets are kept."""
    references: str | None = None
    """Where complete loads leave what a quicker one needs; None: every load is complete."""
    memory_floor: int | None = None
    """Bytes that batches leave free of a pool that the device shares with the host; None: the default."""


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """What the worker holds, as it sees itself; bytes."""

    rss: int
    """Resident set of the worker process."""
    reserved: int | None = None
    """Torch's reserved bytes on the device; None on a CPU, where torch keeps no count."""
    allocated: int | None = None
    peak: int | None = None
    """The most that torch had allocated at once since the load."""
    pids: tuple[int, ...] = ()
    """The worker and its children."""


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """What a worker has loaded."""

    encoder: str
    device: str
    device_name: str
    """The GPU's or the CPU's own name."""
    dtype: str
    attention: str
    dimension: int
    max_tokens: int
    pooling: str
    versions: Mapping[str, str]
    """Of torch, CUDA (as torch was built), transformers and sentence-transformers."""
    notes: tuple[str, ...]
    canary: CanaryReport
    memory: WorkerMemory
    way: str = ""
    """How the model was loaded, in words."""


def ready_from(header: Mapping[str, Any]) -> WorkerReady:
    fields = {key: value for key, value in header.items() if key not in ("kind", "id")}
    fields["notes"] = tuple(fields["notes"])
    fields["canary"] = CanaryReport(**fields["canary"])
    fields["memory"] = memory_from(fields["memory"])
    return WorkerReady(**fields)


def memory_from(fields: Mapping[str, Any]) -> WorkerMemory:
    known = {key: value for key, value in fields.items() if key not in ("kind", "id")}
    return WorkerMemory(**{**known, "pids": tuple(known["pids"])})


def error_fields(error: Exception) -> dict[str, Any]:
    """An error as JSON. What is not ours becomes a `BackendError` with the exception's own words as cause."""
    if isinstance(error, EmbedctlError):
        fields = {
            "type": type(error).__name__,
            "what": error.what,
            "why": error.why,
            "remedy": error.remedy,
        }
        return {**fields, "index": error.index} if isinstance(error, InvalidTextError) else fields
    return {
        "type": BackendError.__name__,
        "what": "The native worker failed on a request",
        "why": f"{type(error).__name__}: {error}".strip().split("\n")[0],
        "remedy": "the worker's log has the details",
    }


def error_from(fields: Mapping[str, Any]) -> EmbedctlError:
    """The inverse of `error_fields`."""
    kind = getattr(errors, str(fields["type"]), BackendError)
    what, why, remedy = str(fields["what"]), str(fields["why"]), str(fields["remedy"])
    if kind is InvalidTextError:
        return InvalidTextError(what, why=why, remedy=remedy, index=int(fields["index"]))
    if not (isinstance(kind, type) and issubclass(kind, EmbedctlError)):
        kind = BackendError
    return kind(what, why=why, remedy=remedy)
