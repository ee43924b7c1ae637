"""A scripted engine: everything that `EngineFacade` promises, with canned answers and a clock of its own.

Nothing happens by itself. A test makes time pass with `tick`, moves a job on with the methods of `FakeJob`,
and may change any of the public attributes. `jobs="immediate"` lets every job end well as soon as it starts,
which suits the command line's tests.
"""

from __future__ import annotations

import csv
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedctl.engine import EngineFacade
from embedctl.errors import BackendNotLoadedError, EmbedctlError, UsageError
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    EventBus,
    EventRecorded,
    JobChanged,
    MachineSeen,
    Message,
    SampleTaken,
    Subscriber,
)
from embedctl.paths import Paths
from embedctl.progress import CancelToken
from embedctl.records import (
    BackendHealth,
    BackendState,
    BackendStatus,
    ClaimsReport,
    Condition,
    EmbedResult,
    Event,
    Failure,
    FileState,
    Finding,
    Fingerprint,
    GpuProcess,
    Health,
    JobState,
    JobUpdate,
    Machine,
    ModelStatus,
    ProgressItem,
    Run,
    RunComparison,
    RunSummary,
    Sample,
    Status,
    StepRecord,
    Study,
    StudySummary,
    SwitchPlan,
    Trial,
    TrialReport,
)
from embedctl.series import History
from embedctl.settings import Settings
from tests.support import canned
from tests.support.canned import NOW
from tests.support.canned_studies import coexist_study, quality_study

_UNITS = {"download": "bytes", "verify": "bytes", "pull": "bytes", "benchmark": "requests"}


class FakeJob:
    """A job that a test moves on. Every change is published at once, on the caller's thread."""

    def __init__(self, engine: FakeEngine, update: JobUpdate, on_done: Callable[[], object]) -> None:
        self._engine = engine
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
        """Note the wish and, unless the engine is told to be slow about it, end."""
        self.cancel_asked = True
        if self._engine.cancels_at_once and not self._ended.is_set():
            self.cancelled()

    def wait(self, timeout: float | None = None) -> JobUpdate:
        if not self._ended.wait(timeout):
            raise TimeoutError(f"job {self.id} still runs")
        return self._update

    def _set(self, **changes: Any) -> None:
        self._update = replace(self._update, **changes)
        self._engine.publish(JobChanged(self._update))

    def _end(self, **changes: Any) -> None:
        self._engine.running.pop(self.id, None)
        self._ended.set()
        self._set(eta=None, **changes)


class FakeEngine:
    """The scripted engine. Public attributes may be set before or during a test.

    Attributes:
        now: Its clock, Unix seconds; `clock()` returns it.
        calls: Every call that starts or changes something, in order, such as `("load", "native")`.
        errors: By method name, an error that the method raises instead of answering.
        running: Jobs that run, by id.
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
        self.errors: dict[str, EmbedctlError] = {}
        self.calls: list[tuple[object, ...]] = []
        self.closed = False
        self.running: dict[int, FakeJob] = {}
        self._ids = itertools.count(1)
        self._bus = EventBus()

    # For tests

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
        self.publish(SampleTaken(taken, self.processes()))
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

    # EngineFacade

    @property
    def settings(self) -> Settings:
        return self.settings_

    @property
    def paths(self) -> Paths:
        return self.paths_

    def status(self) -> Status:
        return Status(
            at=self.now,
            active=self.active,
            backends=tuple(self.backends.values()),
            machine=self.machine,
            sample=self.sample() if self.machine else None,
            processes=self.processes(),
            jobs=tuple(job.update for job in self.running.values()),
            store_path=str(self.paths_.database),
            demo=self.demo,
            recording=self.recording,
        )

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        return self._bus.subscribe(subscriber)

    def cancel_job(self, job_id: int) -> None:
        self._called("cancel_job", job_id)
        if job_id in self.running:
            self.running[job_id].cancel()

    def embed(
        self,
        texts: Sequence[str],
        *,
        backend: str | None = None,
        batch_size: int | None = None,
        normalize: bool = True,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> EmbedResult:
        """The same unit vector for the same text, whichever backend is asked."""
        self._called("embed", len(texts), backend)
        if cancel is not None:
            cancel.raise_if_cancelled()
        name = backend or self.active
        if self.backends[name].state is not BackendState.READY:
            raise BackendNotLoadedError(f"{name} is not loaded", remedy=f"embedctl load {name}")
        rows = np.stack([_vector(text) for text in texts]) if texts else np.empty((0, 1024), np.float32)
        tokens = sum(2 + len(text.split()) for text in texts)
        return EmbedResult(rows, name, tokens, (), (), 0.0246, fingerprint=canned.fingerprint(name).digest)

    def fingerprint(self, backend: str | None = None) -> Fingerprint:
        self._called("fingerprint", backend)
        return canned.fingerprint(backend or self.active)

    def refresh(self) -> tuple[BackendStatus, ...]:
        self._called("refresh")
        return tuple(self.backends.values())

    def load(self, backend: str) -> FakeJob:
        self._called("load", backend)

        def done() -> object:
            self._ready(backend)
            return canned.load_report(backend)

        job = self._start("load", f"Load {backend}", done)
        if self.job_mode == "manual":
            self.set_backend(replace(self.backends[backend], state=BackendState.LOADING, detail=""))
        return job

    def unload(self, backend: str) -> FakeJob:
        self._called("unload", backend)
        return self._start("unload", f"Unload {backend}", lambda: self._unloaded(backend))

    def plan_switch(self, target: str, *, keep_both: bool | None = None) -> SwitchPlan:
        self._called("plan_switch", target, keep_both)
        keep = not self.settings.engine.unload_after_switch if keep_both is None else keep_both
        loaded = self.backends[target].state is BackendState.READY
        plan = self.plan or canned.switch_plan(self.active, target, target_loaded=loaded)
        steps = tuple(
            step for step in plan.steps if not (keep and step.startswith(("drain", "unload", "settle")))
        )
        return replace(plan, unloads_source=not keep, steps=steps)

    def switch(self, target: str, *, keep_both: bool | None = None) -> FakeJob:
        self._called("switch", target, keep_both)
        source = self.active

        def done() -> object:
            self._ready(target)
            self.set_active(target)
            if not keep_both:
                self._unloaded(source)
            return canned.switch_report(source, target)

        return self._start("switch", f"Switch to {target}", done)

    def start_trial(self, trial: Trial) -> FakeJob:
        self._called("start_trial", trial)

        def done() -> object:
            self._ready(trial.candidate)
            self.running_trial = canned.trial_report(trial, self.active)
            return self.running_trial

        return self._start("trial", f"Try {trial.candidate}", done)

    def trial(self) -> TrialReport | None:
        return self.running_trial

    def stop_trial(self) -> TrialReport | None:
        self._called("stop_trial")
        report, self.running_trial = self.running_trial, None
        return report

    def health(self) -> Health:
        """Healthy where a backend is ready, idle elsewhere, but for what a test sets in `conditions`."""
        found = tuple(
            BackendHealth(
                name,
                condition := self.conditions.get(
                    name, Condition.HEALTHY if status.state is BackendState.READY else Condition.IDLE
                ),
                f"scripted: {condition.value}",
                self.now,
                3.2 if condition is Condition.HEALTHY else None,
            )
            for name, status in self.backends.items()
        )
        ready = any(h.backend == self.active and h.condition is Condition.HEALTHY for h in found)
        return Health(self.now, ready, self.active, found)

    def model(self, *, online: bool = True) -> ModelStatus:
        self._called("model", online)
        return self.model_status

    def download(self) -> FakeJob:
        self._called("download")
        return self._start("download", f"Download {self.model_status.repo}", self._downloaded)

    def pull(self) -> FakeJob:
        self._called("pull")

        def done() -> object:
            self.set_backend(canned.ollama(BackendState.UNLOADED))
            return None

        return self._start("pull", "Pull bge-m3 into Ollama", done)

    def tune(self) -> FakeJob:
        self._called("tune")
        return self._start("tune", "Tune the native backend", canned.tune_report)

    def verify(self) -> FakeJob:
        self._called("verify")
        return self._start("verify", f"Verify {self.model_status.repo}", self._downloaded)

    def remove_model(self) -> FakeJob:
        self._called("remove_model")

        def done() -> object:
            freed = sum(file.on_disk for file in self.model_status.files)
            self.model_status = canned.model(FileState.MISSING)
            return freed

        return self._start("remove", f"Remove {self.model_status.repo}", done)

    def benchmark(
        self, *, backends: Sequence[str] | None = None, preset: str = "quick", title: str = ""
    ) -> FakeJob:
        self._called("benchmark", tuple(backends) if backends else None, preset, title)

        def done() -> object:
            run_id = max(self.stored_runs, default=0) + 1
            run = replace(canned.run(run_id), at=self.now, preset=preset, title=title)
            self.stored_runs[run_id] = run
            return run

        return self._start("benchmark", f"Benchmark {preset}", done)

    def resume_benchmark(self, run_id: int) -> FakeJob:
        self._called("resume_benchmark", run_id)
        resumed = self.run(run_id)

        def done() -> object:
            self.stored_runs[run_id] = replace(resumed, state="done")
            return self.stored_runs[run_id]

        return self._start("benchmark", f"Benchmark {resumed.preset}", done)

    def add_run(self, run: Run) -> Run:
        self._called("add_run", run.title)
        added = replace(run, id=max(self.stored_runs, default=0) + 1)
        self.stored_runs[added.id] = added
        return added

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        self._called("runs", limit)
        newest = sorted(self.stored_runs.values(), key=lambda run: -run.id)[:limit]
        return tuple(canned.summary(run) for run in newest)

    def run(self, run_id: int) -> Run:
        self._called("run", run_id)
        if run_id not in self.stored_runs:
            raise UsageError(f"There is no run {run_id}", remedy="`embedctl bench list` shows all runs")
        return self.stored_runs[run_id]

    def compare_runs(self, a: int, b: int) -> RunComparison:
        self._called("compare_runs", a, b)
        return canned.compare(self.run(a), self.run(b))

    def check(
        self,
        *,
        backends: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        texts_name: str = "own texts",
    ) -> FakeJob:
        self._called("check", tuple(backends) if backends else None, len(texts) if texts else None)

        return self._start("check", "Check native and ollama", lambda: self._studied(canned.check_study))

    def quality(
        self,
        *,
        backends: Sequence[str] | None = None,
        vary: str = "",
        sets: Sequence[str] = ("xquad",),
        split: str = "test",
        queries: int | None = None,
        documents: int | None = None,
        threshold: float = 0.01,
    ) -> FakeJob:
        asked = tuple(backends) if backends else None
        self._called("quality", asked, vary, tuple(sets), split, queries, documents, threshold)
        return self._start("quality", "Measure retrieval quality", lambda: self._studied(quality_study))

    def coexist(
        self,
        *,
        backends: Sequence[str] | None = None,
        model: str | None = None,
        rounds: int = 6,
        block_seconds: float = 10.0,
        least_kept: float = 0.8,
        most_slower: float = 2.0,
    ) -> FakeJob:
        asked = tuple(backends) if backends else None
        self._called("coexist", asked, model, rounds, block_seconds, least_kept, most_slower)
        return self._start("coexist", "Embed beside a language model", lambda: self._studied(coexist_study))

    def claims(self) -> ClaimsReport:
        self._called("claims")
        from embedctl.lab.claims import claims

        return claims(
            list(self.stored_runs.values()), list(self.stored_studies.values()), at=self.now,
            simulated=self.demo,
        )  # fmt: skip

    def _studied(self, make: Callable[..., Study]) -> Study:
        study_id = max(self.stored_studies, default=0) + 1
        self.stored_studies[study_id] = make(study_id, at=self.now)
        return self.stored_studies[study_id]

    def check_changes(self) -> tuple[str, ...] | None:
        self._called("check_changes")
        return self.changes

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        self._called("studies", kind, limit)
        newest = sorted(self.stored_studies.values(), key=lambda study: -study.id)
        chosen = [study for study in newest if kind is None or study.kind == kind][:limit]
        return tuple(canned.study_summary(study) for study in chosen)

    def study(self, study_id: int) -> Study:
        self._called("study", study_id)
        if study_id not in self.stored_studies:
            raise UsageError(f"There is no study {study_id}")
        return self.stored_studies[study_id]

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        self._called("history", since, until)
        return canned.history(since, until, metrics=metrics, points=points, **self._presence())

    def recorded_span(self) -> tuple[float, float] | None:
        self._called("recorded_span")
        return (NOW - 30 * 86_400, self.now)

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        self._called("events", since, until)
        chosen = [
            event
            for event in self.stored_events
            if (since is None or event.at >= since)
            and (until is None or event.at <= until)
            and (kinds is None or event.kind in kinds)
        ]
        return tuple(chosen[:limit])

    def annotate(self, at: float, text: str) -> Event:
        self._called("annotate", at, text)
        event = Event(at, "note", text, id=max((e.id or 0 for e in self.stored_events), default=0) + 1)
        self.stored_events.append(event)
        self.stored_events.sort(key=lambda event: -event.at)
        self.publish(EventRecorded(event))
        return event

    def export_csv(
        self, target: Path, since: float, until: float, *, metrics: Sequence[str] | None = None
    ) -> int:
        self._called("export_csv", target, since, until)
        window = canned.history(since, until, metrics=metrics, **self._presence())
        times = sorted({float(t) for series in window.series.values() for t in series.at})
        by_key = {
            key: dict(zip(series.at, series.mean, strict=True)) for key, series in window.series.items()
        }
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["at", *by_key])
            writer.writerows([t, *(values.get(t, "") for values in by_key.values())] for t in times)
        return len(times)

    def doctor(self) -> tuple[Finding, ...]:
        self._called("doctor")
        return self.findings

    def close(self) -> None:
        self.calls.append(("close",))
        self.closed = True

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

    def _downloaded(self) -> ModelStatus:
        self.model_status = canned.model(FileState.VERIFIED)
        if self.backends["native"].state is BackendState.MODEL_MISSING:
            self._unloaded("native")
        return self.model_status


def fresh_engine(**changes: Any) -> FakeEngine:
    """A machine where nothing was fetched yet and no Ollama runs."""
    defaults: dict[str, Any] = {
        "native": canned.native(BackendState.MODEL_MISSING),
        "ollama": canned.ollama(BackendState.UNAVAILABLE),
        "model": canned.model(FileState.MISSING),
    }
    engine = FakeEngine(**(defaults | changes))
    engine.stored_runs.clear()
    engine.stored_studies.clear()
    engine.changes = None
    engine.stored_events[:] = [Event(NOW - 4, "start", "embedctl 0.1.0", id=1)]
    return engine


def _vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector of 1,024 numbers that depends on the text alone."""
    seed = int.from_bytes(text.encode()[:32].ljust(32, b"\0"), "little") % 2**32
    vector = np.random.default_rng(seed).standard_normal(1024).astype(np.float32)
    return vector / np.linalg.norm(vector)


def _conforms(engine: FakeEngine) -> EngineFacade:
    """For the type checker: the scripted engine is an `EngineFacade`."""
    return engine
