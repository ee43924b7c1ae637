"""A scripted engine: everything that `EngineFacade` promises, with canned answers and a clock of its own.

Nothing happens by itself. A test makes time pass with `tick`, moves a job on with the methods of `FakeJob`,
and may change any of the public attributes. `jobs="immediate"` lets every job end well as soon as it starts,
which suits the command line's tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedctl.engine import EngineFacade
from embedctl.errors import BackendNotLoadedError
from embedctl.events import Subscriber
from embedctl.paths import Paths
from embedctl.progress import CancelToken
from embedctl.records import (
    BackendHealth,
    BackendState,
    BackendStatus,
    Condition,
    EmbedResult,
    Event,
    FileState,
    Finding,
    Fingerprint,
    Health,
    ModelStatus,
    Nearest,
    Status,
    Study,
    SwitchPlan,
    Tokenisation,
    Trial,
    TrialReport,
)
from embedctl.settings import Settings
from tests.support import canned
from tests.support.canned import NOW
from tests.support.fake_records import FakeRecords
from tests.support.fake_world import FakeJob


class FakeEngine(FakeRecords):
    """What `EngineFacade` promises beside the records; what a test may set is listed at `FakeWorld`."""

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

    def tokens(self, texts: Sequence[str]) -> Tokenisation:
        """A piece per word, and `token_limit` of them are read."""
        self._called("tokens", len(texts))
        if self.no_pieces is not None:
            return Tokenisation("BAAI/bge-m3", (), None, self.no_pieces.what, self.no_pieces)
        return canned.tokenisation(texts, self.token_limit)

    def nearest(
        self,
        of: EmbedResult,
        *,
        passages: Sequence[str] | None = None,
        count: int = 3,
        patience: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Nearest:
        """By the scripted vectors, in which texts are the closer the more words they share."""
        self._called("nearest", of.backend, len(passages) if passages is not None else None, count)
        if cancel is not None:
            cancel.raise_if_cancelled()
        searched = canned.PASSAGES if passages is None else tuple(("", text) for text in passages)
        scores = of.vectors @ np.stack([_vector(text) for _, text in searched]).T
        return canned.nearest(of.backend, searched, scores, count)

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
        self,
        *,
        backends: Sequence[str] | None = None,
        preset: str = "quick",
        title: str = "",
        minutes: float | None = None,
    ) -> FakeJob:
        self._called("benchmark", tuple(backends) if backends else None, preset, title, minutes)

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
        return self._start(
            "quality", "Measure retrieval quality", lambda: self._studied(canned.quality_study)
        )

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
        return self._start(
            "coexist", "Embed beside a language model", lambda: self._studied(canned.coexist_study)
        )

    def doctor(self) -> tuple[Finding, ...]:
        self._called("doctor")
        return self.findings

    def close(self) -> None:
        self.calls.append(("close",))
        self.closed = True

    # Inside

    def _studied(self, make: Callable[..., Study]) -> Study:
        study_id = max(self.stored_studies, default=0) + 1
        self.stored_studies[study_id] = make(study_id, at=self.now)
        return self.stored_studies[study_id]

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
    """A unit vector of 1,024 numbers that depends on the text's words alone."""
    vector = sum(_word_vector(word) for word in text.lower().split() or [""])
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _word_vector(word: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    seed = int.from_bytes(word.encode()[:32].ljust(32, b"\0"), "little") % 2**32
    return np.random.default_rng(seed).standard_normal(1024)


def _conforms(engine: FakeEngine) -> EngineFacade:
    """For the type checker: the scripted engine is an `EngineFacade`."""
    return engine
