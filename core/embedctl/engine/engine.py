"""The engine: one object that owns the backends, the active choice, the sampler, the jobs and the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from embedctl.engine.answering import Answering, Wanted
from embedctl.engine.backend_work import BACKEND_JOBS, BackendWork
from embedctl.engine.corpora import Corpora, built_in_corpus, own_corpus
from embedctl.engine.jobs import Job, JobRunner
from embedctl.engine.journal import this_process
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.measurements import MeasuringCalls
from embedctl.engine.memory import LatestSample, Room, memory_floor, room
from embedctl.engine.model_work import ModelWork
from embedctl.engine.parts import Parts
from embedctl.engine.sampling import Recorder, make_sampler
from embedctl.engine.studies import Studies
from embedctl.engine.switching import Switcher
from embedctl.engine.tokenising import Tokenising
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
    EmbedResult,
    Finding,
    Fingerprint,
    Health,
    ModelStatus,
    Nearest,
    Sample,
    Status,
    SwitchPlan,
    Tokenisation,
    Trial,
    TrialReport,
)
from embedctl.settings import Settings

if TYPE_CHECKING:
    from embedctl.telemetry.sampler import Sampler

_ACTIVE = "active_backend"
"""Key of the active choice in the store."""
_MODEL, _PULL = "model", "pull"
"""Groups of jobs that exclude each other, beside those on the backends."""
_BESIDE_A_TRIAL = frozenset({"load", "unload", "switch", "trial"})
"""Jobs on the backends that may start while a trial runs; the others measure, and load and unload for it."""
_FRESH_SAMPLE_S = 3.0
"""How long a load that follows the start, or another load, at once waits for figures of the machine."""


class Engine(MeasuringCalls):
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
        self._paths = paths
        self._clock = clock
        self._closing = threading.Lock()
        self._reading = threading.Lock()
        self._closed = False
        self._machine = parts.probe.machine()
        self._latest = LatestSample()
        jobs = JobRunner(
            lambda update: parts.bus.publish(JobChanged(update)), clock, admit=self._admit_beside_trial
        )
        remembered = parts.store.get_state(_ACTIVE)
        self._traffic = Traffic(starting_backend or remembered or settings.engine.backend)
        lifecycle = Lifecycle(
            parts.backends,
            self._traffic,
            self._room,
            parts.journal,
            drain_timeout=settings.engine.drain_timeout_s,
            settle_timeout=settings.engine.settle_timeout_s,
        )
        self._switcher = Switcher(
            lifecycle,
            self._traffic,
            self._latest,
            self._room,
            settings.engine,
            activate=self._activate,
        )
        self._trials = Trials(
            parts.journal, rolled_back=lambda name, why: self._vitals.tell_rolled_back(name, why), clock=clock
        )
        work = BackendWork(
            parts, lifecycle, self._traffic, self._switcher, self._trials, self._latest, self._machine
        )
        self._model_work = ModelWork(parts, lifecycle, settings, clock)
        self._answering = Answering(lifecycle, self._traffic, self._trials, parts.backends)
        self._tokenising = Tokenising(
            settings, lambda: parts.hub.folder(), lambda: lifecycle.backend("native").status()
        )
        self._corpora = Corpora(self.embed)
        self._watch = BackendWatch(
            parts.backends.values(),
            self._traffic,
            probe_every=settings.engine.probe_every_s,
            ours=lifecycle.ours,
            quiet=self._measuring,
            after_look=lambda: self._vitals.tell(),
        )
        self._vitals = Vitals(
            parts.backends, self._traffic, self._watch, self._latest, self._machine, settings, parts.journal,
            ours=lifecycle.ours, quiet=self._measuring, clock=clock,
        )  # fmt: skip
        studies = Studies(
            parts, lifecycle, settings,
            active=lambda: self._traffic.active, fingerprint=self.fingerprint,
            machine=self._machine, latest=self._latest, clock=clock,
        )  # fmt: skip
        super().__init__(parts, settings, jobs, lifecycle, work, studies, simulated=demo)  # made of the above
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
            demo=self._simulated,
            recording=self._recorder.recording,
            recorder=self._parts.store.recorder(),
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

    def tokens(self, texts: Sequence[str]) -> Tokenisation:
        return self._tokenising.tokens(texts)

    def nearest(
        self,
        of: EmbedResult,
        *,
        passages: Sequence[str] | None = None,
        count: int = 3,
        patience: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Nearest:
        corpus = built_in_corpus() if passages is None else own_corpus(passages)
        return self._corpora.nearest(of, corpus, count, patience=patience, cancel=cancel)

    # The façade: backends ---

    def refresh(self) -> tuple[BackendStatus, ...]:
        return tuple(backend.refresh() for backend in self._parts.backends.values())

    def load(self, backend: BackendName) -> Job:
        self._lifecycle.backend(backend)
        return self._jobs.start(
            BACKEND_JOBS,
            "load",
            f"Load {backend}",
            lambda job: self._lifecycle.load(backend, job, job.cancel_token),
        )

    def unload(self, backend: BackendName) -> Job:
        self._lifecycle.backend(backend)
        self._trials.keep_from(f"Unload {backend}", backend)
        return self._jobs.start(
            BACKEND_JOBS,
            "unload",
            f"Unload {backend}",
            lambda job: self._lifecycle.unload_when_idle(backend, job.cancel_token),
        )

    def plan_switch(self, target: BackendName, *, keep_both: bool | None = None) -> SwitchPlan:
        self._lifecycle.backend(target)
        return self._switcher.plan(target, keep_both)

    def switch(self, target: BackendName, *, keep_both: bool | None = None) -> Job:
        self._lifecycle.backend(target)
        return self._jobs.start(
            BACKEND_JOBS,
            "switch",
            f"Switch to {target}",
            lambda job: self._work.switch(job, target, keep_both),
        )

    # The façade: a migration on trial ---

    def start_trial(self, trial: Trial) -> Job:
        self._lifecycle.backend(trial.candidate)
        check_trial(trial, self._traffic.active)
        return self._jobs.start(
            BACKEND_JOBS, "trial", f"Try {trial.candidate}", lambda job: self._work.start_trial(job, trial)
        )

    def trial(self) -> TrialReport | None:
        return self._trials.report()

    def stop_trial(self) -> TrialReport | None:
        return self._trials.end("you")

    # The façade: health ---

    def health(self) -> Health:
        return self._vitals.health()

    def tune(self) -> Job:
        return self._jobs.start(BACKEND_JOBS, "tune", "Tune the native backend", self._work.tune)

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

    # The façade: the machine ---

    def doctor(self) -> tuple[Finding, ...]:
        from embedctl.doctor import examine

        self.refresh()
        return examine(
            self.status(),
            lambda: self.model(online=False),
            store_path=self._parts.store.path,
            memory_floor=memory_floor(self._machine.memory_total, self._settings.engine.memory_floor_gib),
        )

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

    def admitted(self, name: BackendName, cancel: CancelToken) -> AbstractContextManager[object]:
        """See `Lifecycle.admitted`; for a backend that starts anew by itself."""
        return self._lifecycle.admitted(self._lifecycle.backend(name), cancel)

    def _admit_beside_trial(self, group: str, kind: str, title: str) -> None:
        if group == BACKEND_JOBS and kind not in _BESIDE_A_TRIAL:
            self._trials.keep_from(title)

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
