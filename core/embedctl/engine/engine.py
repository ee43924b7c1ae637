"""The engine: one object that owns the backends, the active choice, the sampler, the jobs and the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl.engine.answering import Answering, Wanted
from embedctl.engine.backend_work import BackendWork
from embedctl.engine.jobs import Job, JobRunner
from embedctl.engine.journal import this_process
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.memory import LatestSample, Room, room
from embedctl.engine.model_work import ModelWork
from embedctl.engine.parts import Parts
from embedctl.engine.sampling import Recorder, make_sampler
from embedctl.engine.studies import Studies
from embedctl.engine.switching import Switcher
from embedctl.engine.traffic import Traffic
from embedctl.engine.trial import Trials, check_trial
from embedctl.engine.vitals import Vitals
from embedctl.engine.watch import BackendWatch
from embedctl.errors import StoreError, UsageError
from embedctl.events import ActiveChanged, JobChanged, MachineSeen, Subscriber
from embedctl.paths import Paths
from embedctl.progress import CancelToken
from embedctl.records import (
    BackendName,
    BackendStatus,
    ClaimsReport,
    EmbedResult,
    Event,
    Finding,
    Fingerprint,
    Health,
    ModelStatus,
    Run,
    RunComparison,
    RunSummary,
    Sample,
    Status,
    Study,
    StudySummary,
    SwitchPlan,
    Trial,
    TrialReport,
)
from embedctl.series import History
from embedctl.settings import Settings

if TYPE_CHECKING:
    from embedctl.telemetry.sampler import Sampler

_ACTIVE = "active_backend"
"""Key of the active choice in the store."""
_BACKENDS, _MODEL, _PULL = "backends", "model", "pull"
"""Groups of jobs that exclude each other."""
_MEASURING = ("benchmark", "check", "coexist", "quality", "tune")
"""Kinds of jobs that keep a backend busy past the traffic's eyes: a probe beside them would wait in vain."""
_FRESH_SAMPLE_S = 3.0
"""How long a load that follows the start, or another load, at once waits for figures of the machine."""


class Engine:
    """Fulfils `EngineFacade` in this process. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        paths: Paths,
        parts: Parts,
        *,
        starting_backend: BackendName | None = None,
        demo: bool = False,
        sampling: bool = True,
        recording: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Wire the parts together and start the background threads.

        Args:
            starting_backend: Goes before the remembered choice (the `EMBEDDING_BACKEND` flag).
            sampling: Start the sampler and the watch; without them nothing runs until it is asked for.
            recording: Store what is sampled; a mere look at the machine leaves no trace in the history.
        """
        self._settings = settings
        self._paths = paths
        self._parts = parts
        self._demo = demo
        self._clock = clock
        self._closing = threading.Lock()
        self._reading = threading.Lock()
        self._closed = False
        self._machine = parts.probe.machine()
        self._latest = LatestSample()
        self._jobs = JobRunner(lambda update: parts.bus.publish(JobChanged(update)), clock)
        remembered = parts.store.get_state(_ACTIVE)
        self._traffic = Traffic(starting_backend or remembered or settings.engine.backend)
        self._lifecycle = Lifecycle(
            parts.backends,
            self._traffic,
            self._room,
            parts.journal,
            drain_timeout=settings.engine.drain_timeout_s,
            settle_timeout=settings.engine.settle_timeout_s,
        )
        self._switcher = Switcher(
            self._lifecycle,
            self._traffic,
            self._latest,
            self._room,
            settings.engine,
            activate=self._activate,
        )
        self._trials = Trials(parts.journal, clock=clock)
        self._work = BackendWork(
            parts, self._lifecycle, self._traffic, self._switcher, self._trials, self._latest, self._machine
        )
        self._model_work = ModelWork(parts, self._lifecycle, settings, clock)
        self._answering = Answering(self._lifecycle, self._traffic, self._trials, parts.backends)
        self._watch = BackendWatch(
            parts.backends.values(),
            self._traffic,
            probe_every=settings.engine.probe_every_s,
            ours=self._lifecycle.ours,
            quiet=self._measuring,
            after_look=lambda: self._vitals.tell(),
        )
        self._vitals = Vitals(
            parts.backends, self._traffic, self._watch, self._latest, self._machine, settings, parts.journal,
            ours=self._lifecycle.ours, quiet=self._measuring, clock=clock,
        )  # fmt: skip
        self._studies = Studies(
            parts, self._lifecycle, settings,
            active=lambda: self._traffic.active, fingerprint=self.fingerprint,
            machine=self._machine, latest=self._latest, clock=clock,
        )  # fmt: skip
        self._recording = sampling and recording
        self._recorder = Recorder(parts, self._latest)
        self._sampler: Sampler | None = None
        if sampling:
            self._sampler = make_sampler(
                parts, self._recorder, self._traffic, settings.telemetry, storing=recording
            )
            parts.bus.publish(MachineSeen(self._machine))
            if self._recording:
                parts.journal.add("start", "embedctl started", detail=this_process())
            self._sampler.start()
            self._vitals.start()
            self._watch.start()

    # The façade: state ---

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def paths(self) -> Paths:
        return self._paths

    def status(self) -> Status:
        return Status(
            at=self._clock(),
            active=self._traffic.active,
            backends=tuple(backend.status() for backend in self._parts.backends.values()),
            machine=self._machine,
            sample=self._latest.sample,
            processes=self._latest.processes,
            jobs=self._jobs.running(),
            store_path=str(self._parts.store.path),
            demo=self._demo,
            recording=self._recorder.recording,
            recorder=self._other_recorder(),
        )

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        return self._parts.bus.subscribe(subscriber)

    def cancel_job(self, job_id: int) -> None:
        self._jobs.cancel(job_id)

    # The façade: embedding ---

    def embed(
        self,
        texts: Sequence[str],
        *,
        backend: BackendName | None = None,
        batch_size: int | None = None,
        normalize: bool = True,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> EmbedResult:
        if self._closed:
            raise UsageError(
                "Nothing can be embedded any more",
                why="this engine is closing or was closed",
                remedy="open a new one, or make a new EmbeddingService",
            )
        if backend is not None:
            self._lifecycle.backend(backend)
        if cancel is not None:
            cancel.raise_if_cancelled()
        return self._answering.embed(Wanted(texts, batch_size, normalize, cancel), backend, timeout)

    def fingerprint(self, backend: BackendName | None = None) -> Fingerprint:
        known = self._lifecycle.backend(backend or self._traffic.active).fingerprint()
        gpu = self._machine.gpu.name if self._machine.gpu else "no GPU"
        return replace(known, driver=self._machine.driver, machine=f"{self._machine.hostname}, {gpu}")

    # The façade: backends ---

    def refresh(self) -> tuple[BackendStatus, ...]:
        return tuple(backend.refresh() for backend in self._parts.backends.values())

    def load(self, backend: BackendName) -> Job:
        self._lifecycle.backend(backend)
        return self._jobs.start(
            _BACKENDS,
            "load",
            f"Load {backend}",
            lambda job: self._lifecycle.load(backend, job, job.cancel_token),
        )

    def unload(self, backend: BackendName) -> Job:
        self._lifecycle.backend(backend)
        return self._jobs.start(
            _BACKENDS, "unload", f"Unload {backend}", lambda _: self._work.unload(backend)
        )

    def plan_switch(self, target: BackendName, *, keep_both: bool | None = None) -> SwitchPlan:
        self._lifecycle.backend(target)
        return self._switcher.plan(target, keep_both)

    def switch(self, target: BackendName, *, keep_both: bool | None = None) -> Job:
        self._lifecycle.backend(target)
        return self._jobs.start(
            _BACKENDS, "switch", f"Switch to {target}", lambda job: self._work.switch(job, target, keep_both)
        )

    # The façade: a migration on trial ---

    def start_trial(self, trial: Trial) -> Job:
        self._lifecycle.backend(trial.candidate)
        check_trial(trial, self._traffic.active)
        return self._jobs.start(
            _BACKENDS, "trial", f"Try {trial.candidate}", lambda job: self._work.start_trial(job, trial)
        )

    def trial(self) -> TrialReport | None:
        return self._trials.report()

    def stop_trial(self) -> TrialReport | None:
        return self._trials.end("you")

    # The façade: health ---

    def health(self) -> Health:
        return self._vitals.health()

    def tune(self) -> Job:
        return self._jobs.start(_BACKENDS, "tune", "Tune the native backend", self._work.tune)

    # The façade: models ---

    def model(self, *, online: bool = True) -> ModelStatus:
        return self._parts.hub.status(online=online)

    def download(self) -> Job:
        return self._jobs.start(
            _MODEL, "download", f"Download {self._settings.model.repo}", self._model_work.download
        )

    def pull(self) -> Job:
        return self._jobs.start(
            _PULL, "pull", f"Pull {self._settings.model.ollama_tag} into Ollama", self._model_work.pull
        )

    def verify(self) -> Job:
        hub = self._parts.hub
        return self._jobs.start(
            _MODEL,
            "verify",
            f"Verify {self._settings.model.repo}",
            lambda job: hub.verify(job, job.cancel_token),
        )

    def remove_model(self) -> Job:
        return self._jobs.start(
            _MODEL, "remove", f"Remove {self._settings.model.repo}", self._model_work.remove
        )

    # The façade: benchmarks ---

    def benchmark(
        self, *, backends: Sequence[BackendName] | None = None, preset: str = "quick", title: str = ""
    ) -> Job:
        from embedctl.engine.measuring import Wish
        from embedctl.lab.presets import preset_of

        names = tuple(dict.fromkeys(backends or self._parts.backends))
        for name in names:
            self._lifecycle.backend(name)
        preset_of(preset)  # refused now, not after minutes of loading
        return self._jobs.start(
            _BACKENDS,
            "benchmark",
            f"Benchmark {preset}",
            lambda job: self._work.benchmark(job, names, Wish(preset, title)),
        )

    def resume_benchmark(self, run_id: int) -> Job:
        from embedctl.engine.measuring import Wish, require_resumable

        run = self.run(run_id)
        require_resumable(run)
        return self._jobs.start(
            _BACKENDS,
            "benchmark",
            f"Benchmark {run.preset}",
            lambda job: self._work.benchmark(job, run.backends, Wish(run.preset, run.title, run)),
        )

    def add_run(self, run: Run) -> Run:
        return self._parts.store.add_run(run)

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        return self._parts.store.runs(limit)

    def run(self, run_id: int) -> Run:
        found = self._parts.store.run(run_id)
        if found is None:
            raise UsageError(
                f"There is no run {run_id}", remedy="`embedctl bench list` shows those there are"
            )
        return found

    def compare_runs(self, a: int, b: int) -> RunComparison:
        from embedctl.lab.compare import compare

        return compare(self.run(a), self.run(b))

    # The façade: studies ---

    def check(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        texts: Sequence[str] | None = None,
        texts_name: str = "own texts",
    ) -> Job:
        names = tuple(dict.fromkeys(backends or self._parts.backends))
        for name in names:
            self._lifecycle.backend(name)
        if texts is not None and not texts:
            raise UsageError("There is no text to check with", remedy="give a file with one text per line")
        return self._jobs.start(
            _BACKENDS,
            "check",
            f"Check {' and '.join(names)}",
            lambda job: self._studies.check(job, names, texts, texts_name),
        )

    def quality(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        vary: str = "",
        sets: Sequence[str] = ("xquad",),
        split: str = "test",
        queries: int | None = None,
        documents: int | None = None,
        threshold: float = 0.01,
    ) -> Job:
        from embedctl.engine.quality_study import quality_question

        question = quality_question(
            self._parts.backends, self._settings.native, backends=backends, vary=vary, sets=sets, split=split,
            queries=queries, documents=documents, threshold=threshold,
        )  # fmt: skip
        return self._jobs.start(
            _BACKENDS,
            "quality",
            "Measure retrieval quality",
            lambda job: self._studies.quality(job, question),
        )

    def coexist(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        model: str | None = None,
        rounds: int = 6,
        block_seconds: float = 10.0,
        least_kept: float = 0.8,
        most_slower: float = 2.0,
    ) -> Job:
        from embedctl.engine.coexist_study import coexist_question

        question = coexist_question(
            self._parts.backends, backends=backends, model=model, rounds=rounds, block_seconds=block_seconds,
            least_kept=least_kept, most_slower=most_slower,
        )  # fmt: skip
        return self._jobs.start(
            _BACKENDS,
            "coexist",
            "Embed beside a language model",
            lambda job: self._studies.coexist(job, question),
        )

    def claims(self) -> ClaimsReport:
        return self._studies.claims(simulated=self._demo)

    def check_changes(self) -> tuple[str, ...] | None:
        return self._studies.check_changes()

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        return self._parts.store.studies(kind, limit)

    def study(self, study_id: int) -> Study:
        return self._studies.get(study_id)

    # The façade: history ---

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        return self._parts.store.history(since, until, metrics, points)

    def recorded_span(self) -> tuple[float, float] | None:
        return self._parts.store.recorded_span()

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        return self._parts.store.events(since, until, kinds, limit)

    def annotate(self, at: float, text: str) -> Event:
        return self._parts.journal.annotate(at, text)

    def export_csv(
        self, target: Path, since: float, until: float, *, metrics: Sequence[str] | None = None
    ) -> int:
        return self._parts.store.export_csv(target, since, until, metrics)

    # The façade: the machine ---

    def doctor(self) -> tuple[Finding, ...]:
        from embedctl.doctor import examine

        self.refresh()
        return examine(self.status(), lambda: self.model(online=False), store_path=self._parts.store.path)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        with ExitStack() as ends:  # last in, first out; one that fails does not keep the others from running
            for end in reversed(self._parts.at_close):
                ends.callback(end)
            ends.callback(self._parts.store.close)
            ends.callback(self._parts.probe.close)
            if self._recording:
                ends.callback(self._parts.journal.add, "stop", "embedctl stopped", detail=this_process())
            for backend in self._parts.backends.values():
                ends.callback(backend.close)  # unloads what it loaded itself, and nothing else
            if self._sampler is not None:
                ends.callback(self._sampler.stop)
                ends.callback(self._vitals.stop)
                ends.callback(self._watch.stop)
            ends.callback(self._jobs.close)
            ends.callback(self._lifecycle.close)
            ends.callback(self._trials.end, "the end of embedctl")

    # Inside ---

    def _measuring(self) -> bool:
        return any(job.kind in _MEASURING for job in self._jobs.running())

    def _other_recorder(self) -> int | None:
        try:
            return self._parts.store.recorder()
        except OSError:  # a lock file that may not be read: nobody can say
            return None

    def _room(self) -> Room:
        """The room as of now: by the sampler, or, where none runs, by a reading of its own."""
        if self._sampler is not None:
            sample = self._latest.after(self._lifecycle.load_ended, timeout=_FRESH_SAMPLE_S)
        else:
            with self._reading:  # a probe is read by one thread at a time
                readings = self._parts.probe.read({})
            sample = Sample(self._clock(), readings.values, readings.provenance)
        return room(self._machine, sample, self._settings.engine.memory_floor_gib)

    def _activate(self, backend: BackendName) -> None:
        try:
            self._parts.store.set_state(_ACTIVE, backend)
        except StoreError as error:  # a full disk must not keep anyone from switching
            self._parts.journal.add_failure(
                "the choice will not outlive this process", error, backend, during="switch"
            )
        self._traffic.flip(backend)
        self._parts.bus.publish(ActiveChanged(backend))
