"""What happened, what was found, and the whole state at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from embedctl.records.backends import BackendName, BackendStatus
from embedctl.records.jobs import JobUpdate
from embedctl.records.machine import GpuProcess, Machine, Sample


class Severity(StrEnum):
    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doctor looked at."""

    topic: str
    title: str
    severity: Severity
    detail: str
    remedy: str = ""


# Time line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """A dated fact on the time line."""

    at: float
    kind: str
    """`start`, `stop`, `switch`, `load`, `unload`, `download`, `run`, `check`, `quality`, `coexist`, `error`,
    `throttling`, `trial`, `health`, `note`."""
    title: str
    backend: BackendName | None = None
    severity: Severity = Severity.INFO
    detail: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
    """Set by the store."""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole state at one moment."""

    at: float
    active: BackendName
    backends: tuple[BackendStatus, ...]
    machine: Machine | None
    """None until the first look has finished."""
    sample: Sample | None
    processes: tuple[GpuProcess, ...]
    jobs: tuple[JobUpdate, ...]
    """Running jobs."""
    store_path: str
    demo: bool
    recording: bool
    """Samples are being written."""
    recorder: int | None = None
    """PID of another process that records to this history, if one does."""

    def backend(self, name: BackendName) -> BackendStatus:
        return next(status for status in self.backends if status.name == name)
