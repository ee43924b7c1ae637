"""The world of the scripted engine: its clock, machine and backends, and the jobs that a test moves on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from embedctl.errors import EmbedctlError
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    EventBus,
    EventRecorded,
    JobChanged,
    MachineSeen,
    Message,
    SampleTaken,
)
from embedctl.paths import Paths
from embedctl.records import (
    BackendState,
    BackendStatus,
    Condition,
    Event,
    Failure,
    GpuProcess,
    JobState,
    JobUpdate,
    Machine,
    ModelStatus,
    ProgressItem,
    Run,
    Sample,
    StepRecord,
    Study,
    SwitchPlan,
    TrialReport,
)
from embedctl.settings import Settings
from tests.support import canned
from tests.support.canned import NOW

_UNITS = {"download": "bytes", "verify": "bytes", "pull": "bytes", "benchmark": "requests"}


class FakeJob:
    """A job that a test moves on. Every change is published at once, on the caller's thread."""

    def __init__(self, world: FakeWorld, update: JobUpdate, on_done: Callable[[], object]) -> None:
        self._world = world
        self._update = update
        self._on_done = on_done
        self._ended = threading.Event()
        self.cancel_asked = False

    @property
    def id(self) -> int:
        return self._update.job_id

    @property
    def update(self) -> JobUpdate:
        return self._update

    def progress(
        self,
        step: str | None = None,
        *,
        done: float | None = None,
        total: float | None = None,
        rate: float | None = None,
        eta: float | None = None,
        items: Sequence[ProgressItem] = (),
    ) -> None:
        """Say how far the running step is."""
        self._set(
            step=self._update.step if step is None else step,
            done=done,
            total=total,
            rate=rate,
            eta=eta,
            items=tuple(items),
        )

    def steps(self, steps: Sequence[StepRecord]) -> None:
        """Set the steps so far; the last one is the current step."""
        self._set(steps=tuple(steps), step=steps[-1].name if steps else "")

    def finish(self, result: object = None) -> None:
        """End well, with what this kind of job changes in the engine; `result` replaces the usual one."""
        usual = self._on_done()
        self._end(state=JobState.DONE, result=usual if result is None else result)

    def fail(self, what: str, *, why: str = "", remedy: str = "") -> None:
        """End with an error."""
        self._end(state=JobState.FAILED, failure=Failure(what, why, remedy))

    def cancelled(self) -> None:
        """End as a job does that saw the wish to stop."""
        self._end(state=JobState.CANCELLED)

    def cancel(self) -> None:
        """Note the wish and, unless the world is told to be slow about it, end."""
        self.cancel_asked = True
        if self._world.cancels_at_once and not self._ended.is_set():
            self.cancelled()

    def wait(self, timeout: float | None = None) -> JobUpdate:
        if not self._ended.wait(timeout):
            raise TimeoutError(f"job {self.id} still runs")
        return self._update

    def _set(self, **changes: Any) -> None:
        self._update = replace(self._update, **changes)
        self._world.publish(JobChanged(self._update))

    def _end(self, **changes: Any) -> None:
        self._world.running.pop(self.id, None)
        self._ended.set()
        self._set(eta=None, **changes)


class FakeWorld:
    """What a test sets and moves. Public attributes may be set before or during a test.

    Attributes:
        now: Its clock, Unix seconds; `clock()` returns it.
        calls: Every call that starts or changes something, in order, such as `("load", "native")`.
        errors: By method name, an error that the method raises instead of answering.
        running: Jobs that run, by id.
        token_limit: The most tokens of a text that the model is said to read.
        no_pieces: Why there is no tokenizer, if there is none.
        conditions: What `health` says of a backend in place of what follows from its state.
    """

    def __init__(
        self,
        *,
        machine: Machine | None = None,
        native: BackendStatus | None = None,
        ollama: BackendStatus | None = None,
        model: ModelStatus | None = None,
        active: str = "native",
        demo: bool = False,
        jobs: Literal["manual", "immediate"] = "manual",
        settings: Settings | None = None,
        home: Path = Path("/home/ada/.local/share/embedctl"),
    ) -> None:
        self.now = NOW
        self.machine: Machine | None = machine or canned.gb10(simulated=demo)
        self.backends = {"native": native or canned.native(), "ollama": ollama or canned.ollama()}
        self.model_status = model or canned.model()
        self.active = active
        self.demo = demo
        self.recording = True
        self.job_mode = jobs
        self.cancels_at_once = True
        self.settings_ = settings or Settings()
        self.paths_ = Paths.in_folder(home)
        self.plan: SwitchPlan | None = None
        self.running_trial: TrialReport | None = None
        self.conditions: dict[str, Condition] = {}
        self.stored_runs: dict[int, Run] = {
            7: canned.run(7),
            6: canned.run(6, slowdown=1.6),
            3: canned.run(3, slowdown=1.02),
        }
        self.stored_studies: dict[int, Study] = {4: canned.check_study(4)}
        self.changes: tuple[str, ...] | None = ()
        self.stored_events: list[Event] = list(canned.events())
        self.findings = canned.findings()
        self.token_limit: int | None = 8192
        self.no_pieces: Failure | None = None
        self.errors: dict[str, EmbedctlError] = {}
        self.calls: list[tuple[object, ...]] = []
        self.closed = False
        self.running: dict[int, FakeJob] = {}
        self._ids = itertools.count(1)
        self._bus = EventBus()

    def clock(self) -> float:
        return self.now

    def publish(self, message: Message) -> None:
        """Deliver a message to every subscriber on this thread."""
        self._bus.publish(message)

    @property
    def subscribers(self) -> int:
        return len(self._bus._subscribers)

    def tick(self, seconds: float = 0.5) -> Sample:
        """Let time pass and take one sample."""
        self.now += seconds
        taken = self.sample()
        self.publish(SampleTaken(taken, self.processes(), self.recording))
        return taken

    def set_backend(self, status: BackendStatus) -> None:
        self.backends[status.name] = status
        self.publish(BackendChanged(status))

    def set_active(self, backend: str) -> None:
        self.active = backend
        self.publish(ActiveChanged(backend))

    def set_machine(self, machine: Machine) -> None:
        self.machine = machine
        self.publish(MachineSeen(machine))

    def record(self, event: Event) -> None:
        self.stored_events.insert(0, event)
        self.publish(EventRecorded(event))

    def sample(self) -> Sample:
        return canned.sample(self.now, **self._presence())

    def processes(self) -> tuple[GpuProcess, ...]:
        presence = self._presence()
        if not presence.pop("gpu"):
            return ()
        return canned.processes(**presence)

    def job(self, kind: str) -> FakeJob:
        """The running job of this kind."""
        return next(job for job in self.running.values() if job.update.kind == kind)

    # Inside

    def _called(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name in self.errors:
            raise self.errors[name]

    def _presence(self) -> dict[str, bool]:
        ready = {name: status.state is BackendState.READY for name, status in self.backends.items()}
        return {**ready, "gpu": self.machine is not None and self.machine.gpu is not None}

    def _start(self, kind: str, title: str, on_done: Callable[[], object]) -> FakeJob:
        update = JobUpdate(
            job_id=next(self._ids),
            kind=kind,
            title=title,
            state=JobState.RUNNING,
            step="starting",
            started=self.now,
            unit=_UNITS.get(kind, ""),
        )
        job = FakeJob(self, update, on_done)
        self.running[job.id] = job
        self.publish(JobChanged(update))
        if self.job_mode == "immediate":
            job.finish()
        return job

    def _ready(self, backend: str) -> None:
        status = canned.native() if backend == "native" else canned.ollama()
        self.set_backend(replace(status, ready_since=self.now))

    def _unloaded(self, backend: str) -> None:
        make = canned.native if backend == "native" else canned.ollama
        self.set_backend(make(BackendState.UNLOADED))
