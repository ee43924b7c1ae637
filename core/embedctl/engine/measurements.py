"""The façade's calls for what is measured: benchmarks and studies, refused at once if they make no sense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from embedctl.engine.backend_work import BACKEND_JOBS, BackendWork
from embedctl.engine.jobs import Job, JobRunner
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.parts import Parts
from embedctl.engine.stored import StoredCalls
from embedctl.engine.studies import Studies
from embedctl.errors import UsageError
from embedctl.records import BackendName, ClaimsReport
from embedctl.settings import Settings

_MEASURING: Final = ("benchmark", "check", "coexist", "quality", "tune")
"""Kinds of jobs that keep a backend busy past the traffic's eyes: a probe beside them would wait in vain."""


class MeasuringCalls(StoredCalls):
    """Starts the jobs that measure; see `EngineFacade` for what each call promises.

    Args:
        simulated: What is measured are the demo's stand-ins.
    """

    def __init__(
        self,
        parts: Parts,
        settings: Settings,
        jobs: JobRunner,
        lifecycle: Lifecycle,
        work: BackendWork,
        studies: Studies,
        *,
        simulated: bool,
    ) -> None:
        super().__init__(parts)
        self._settings = settings
        self._jobs = jobs
        self._lifecycle = lifecycle
        self._work = work
        self._studies = studies
        self._simulated = simulated

    # Benchmarks

    def benchmark(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        preset: str = "quick",
        title: str = "",
        minutes: float | None = None,
    ) -> Job:
        from embedctl.engine.measuring import Wish
        from embedctl.lab.presets import preset_of

        names = self._asked(backends)
        preset_of(preset)  # refused now, not after minutes of loading
        if minutes is not None and not 0 < minutes < math.inf:
            raise UsageError(
                "No benchmark was started", why=f"{minutes:g} minutes are no time", remedy="give more than 0"
            )
        wish = Wish(preset, title, minutes=minutes, all_of_them=bool(backends))
        return self._jobs.start(
            BACKEND_JOBS,
            "benchmark",
            f"Benchmark {preset}",
            lambda job: self._work.benchmark(job, names, wish),
        )

    def resume_benchmark(self, run_id: int) -> Job:
        from embedctl.engine.measuring import Wish, require_resumable

        run = self.run(run_id)
        require_resumable(run)
        wish = Wish(run.preset, run.title, run, run.environment.get("minutes"))
        return self._jobs.start(
            BACKEND_JOBS,
            "benchmark",
            f"Benchmark {run.preset}",
            lambda job: self._work.benchmark(job, run.backends, wish),
        )

    # Studies

    def check(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        texts: Sequence[str] | None = None,
        texts_name: str = "own texts",
    ) -> Job:
        names = self._asked(backends)
        if texts is not None and not texts:
            raise UsageError("There is no text to check with", remedy="give a file with one text per line")
        return self._jobs.start(
            BACKEND_JOBS,
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
            BACKEND_JOBS,
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
            BACKEND_JOBS,
            "coexist",
            "Embed beside a language model",
            lambda job: self._studies.coexist(job, question),
        )

    def claims(self) -> ClaimsReport:
        return self._studies.claims(simulated=self._simulated)

    def check_changes(self) -> tuple[str, ...] | None:
        return self._studies.check_changes()

    # Inside

    def _measuring(self) -> bool:
        return any(job.kind in _MEASURING for job in self._jobs.running())

    def _asked(self, backends: Sequence[BackendName] | None) -> tuple[BackendName, ...]:
        """The backends asked for, or all; each once, and each one that there is."""
        names = tuple(dict.fromkeys(backends or self._parts.backends))
        for name in names:
            self._lifecycle.backend(name)
        return names
