"""Work under way, and the plan and the report of a switch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from embedctl.records.backends import BackendName


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ProgressItem:
    """One part of a job that has its own bar, such as one file."""

    name: str
    done: float
    total: float | None
    state: Literal["waiting", "running", "done", "failed"] = "running"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a job that ended or runs."""

    name: str
    state: Literal["running", "done", "failed", "skipped", "warning"]
    seconds: float | None = None
    detail: str = ""
    gpu_memory: int | None = None
    """GPU memory in use when the step ended, if it could be read."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a record: what happened, why, what to do."""

    what: str
    why: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """Where a job stands."""

    job_id: int
    kind: str
    """`download`, `load`, `unload`, `switch`, `benchmark`, `check`, `verify`, `pull`."""
    title: str
    state: JobState
    step: str
    started: float
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate: float | None = None
    """Units per second over the last few seconds."""
    eta: float | None = None
    """Seconds left at that rate."""
    items: tuple[ProgressItem, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    failure: Failure | None = None
    result: object | None = None
    """The record that the job made, once it is done."""


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """What a switch would do, for the dialog before it."""

    source: BackendName
    target: BackendName
    target_loaded: bool
    gpu_memory_used: int | None
    source_bytes: int | None
    """What the source holds now, measured where possible."""
    expected_bytes: int | None
    """What the target is expected to hold."""
    expected_source: str
    available_bytes: int | None
    floor_bytes: int
    unloads_source: bool
    fits_beside: bool | None
    """Whether both fit at once above the floor; None if nobody can say."""
    steps: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    obstacle: Failure | None = None
    """Why the switch cannot be started, if it cannot."""


@dataclass(frozen=True, slots=True)
class SwitchReport:
    source: BackendName
    target: BackendName
    seconds: float
    steps: tuple[StepRecord, ...]
    agreement: float | None
    """Least cosine between the two backends on the agreement texts; None if the source was not loaded."""
    unloaded_source: bool
    warnings: tuple[str, ...] = ()
