"""What jobs do with the backends: try, switch, tune, measure; each leaves its event behind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from embedctl.engine.agreement import require_agreement
from embedctl.engine.deadline import Deadline
from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.engine.memory import LatestSample
from embedctl.engine.parts import Parts
from embedctl.engine.switching import Switcher
from embedctl.engine.traffic import Traffic
from embedctl.engine.trial import Trials
from embedctl.errors import Cancelled, EmbedctlError
from embedctl.records import BackendName, Machine, Run, Severity, SwitchReport, Trial, TrialReport, TuneReport

if TYPE_CHECKING:  # costs start-up time, and few processes measure
    from embedctl.engine.measuring import Wish

BACKEND_JOBS: Final = "backends"
"""The group of these jobs."""


class BackendWork:
    """The work of the jobs that exclude each other because they load and unload."""

    def __init__(
        self,
        parts: Parts,
        lifecycle: Lifecycle,
        traffic: Traffic,
        switcher: Switcher,
        trials: Trials,
        latest: LatestSample,
        machine: Machine,
    ) -> None:
        self._parts = parts
        self._lifecycle = lifecycle
        self._traffic = traffic
        self._switcher = switcher
        self._trials = trials
        self._latest = latest
        self._machine = machine

    def start_trial(self, job: Job, trial: Trial) -> TrialReport:
        active = self._traffic.active
        self._lifecycle.load(trial.candidate, job, job.cancel_token)
        candidate = self._lifecycle.backend(trial.candidate)
        if trial.share:
            # Applications get these vectors beside the active backend's: they must be of one model.
            self._lifecycle.ensure_ready(active, Deadline(None), job.cancel_token)
            job("agreement")
            require_agreement(self._lifecycle.backend(active), candidate)
        return self._trials.begin(trial, active, candidate)

    def switch(self, job: Job, target: BackendName, keep_both: bool | None) -> SwitchReport:
        def begins() -> None:
            self._trials.end(f"a switch to {target}")

        try:
            report = self._switcher.run(job, target, keep_both, begins=begins)
        except Cancelled:
            raise
        except EmbedctlError as error:
            self._parts.journal.add_failure(f"switch to {target} failed", error, target, during="switch")
            raise
        self._parts.journal.add(
            "switch",
            f"{report.source} → {report.target}",
            target,
            Severity.WARNING if report.warnings else Severity.OK,
            {
                "seconds": report.seconds,
                "agreement": report.agreement,
                "unloaded": report.unloaded_source,
                "warnings": list(report.warnings),
            },
        )
        return report

    def tune(self, job: Job) -> TuneReport:
        if not self._lifecycle.ready("native"):
            self._lifecycle.load("native", job, job.cancel_token)
        started = time.monotonic()
        report = self._parts.tune(job, job.cancel_token)
        self._parts.journal.add(
            "note",
            f"native is fastest in batches of {report.token_budget} tokens",
            "native",
            detail={
                "tokens_per_s": {str(budget): rate for budget, rate in report.rates},
                "before": report.before,
                "seconds": time.monotonic() - started,
            },
        )
        return report

    def benchmark(self, job: Job, names: tuple[BackendName, ...], wish: Wish) -> Run:
        from embedctl.engine.measuring import measure

        stored = measure(
            job, [self._lifecycle.backend(name) for name in names], self._lifecycle, self._latest,
            self._parts.store, wish, folder=self._parts.hub.folder(), machine=self._machine,
        )  # fmt: skip
        self._parts.journal.add(
            "run",
            f"run {stored.id}: {wish.preset}",
            severity=Severity.OK,
            detail={"run": stored.id, "seconds": stored.seconds},
        )
        return stored
