"""An engine that runs in another process, behind the façade of one that runs in this."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from embedctl.control.connection import QUICK_S, Connection, Dial
from embedctl.control.jobs import RemoteJob
from embedctl.engine.facade import EngineFacade, JobHandle
from embedctl.errors import ConnectionLostError, EmbedctlError
from embedctl.events import (
    ConnectionChanged,
    EventBus,
    Subscriber,
)
from embedctl.files import whole_file
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
    JobUpdate,
    ModelStatus,
    Nearest,
    Run,
    RunComparison,
    RunSummary,
    Status,
    Study,
    StudySummary,
    SwitchPlan,
    Tokenisation,
    Trial,
    TrialReport,
)
from embedctl.series import History
from embedctl.settings import ConsoleSettings, Settings

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class RemoteEngine:
    """Fulfils `EngineFacade` through a connection that is made anew whenever it is lost. Thread-safe.

    Every call may raise `ConnectionLostError`; `status` then answers what was last known. What answers at
    once elsewhere waits here for a service that is slow, up to `QUICK_S`. Subscribers are told of a loss and
    of the return by `ConnectionChanged`, and after a return how everything stands.

    Args:
        dial: Makes a connection.
        paths: Where things lie for this process, such as its exports.
        place: Where the other process runs, if that is another machine.
        console: How the screen is to look here, in place of what the service's settings say.

    Raises:
        ServiceError: Nobody listens, or who does cannot be used.
    """

    def __init__(
        self, dial: Dial, paths: Paths, *, place: str = "", console: ConsoleSettings | None = None
    ) -> None:
        self._paths = paths
        self._console = console
        self._bus = EventBus()
        self._connection = Connection(dial, self._bus.publish, place=place)

    @property
    def connection(self) -> ConnectionChanged:
        """How it stands with the connection."""
        return self._connection.state

    # The façade: state ---

    @property
    def settings(self) -> Settings:
        settings = self._connection.settings
        return settings if self._console is None else settings.model_copy(update={"console": self._console})

    @property
    def paths(self) -> Paths:
        return self._paths

    def status(self) -> Status:
        try:
            self._connection.status = self._quick(EngineFacade.status)
        except EmbedctlError as error:
            log.debug("the last known status is given: %s", error)
        return self._connection.status

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        unsubscribe = self._bus.subscribe(subscriber)
        self._connection.subscribe()
        subscriber(self._connection.state)
        return unsubscribe

    def cancel_job(self, job_id: int) -> None:
        self._quick(EngineFacade.cancel_job, job_id)

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
        options: dict[str, object] = {
            "backend": backend, "batch_size": batch_size, "normalize": normalize, "timeout": timeout
        }  # fmt: skip
        # Beyond the caller's own time only where the service hangs: it keeps that time by itself.
        patience = None if timeout is None else timeout + QUICK_S
        result: EmbedResult = self._connection.patient_link().call(
            "embed", (list(texts),), options, timeout=patience, cancel=cancel
        )
        return result

    def fingerprint(self, backend: BackendName | None = None) -> Fingerprint:
        return self._quick(EngineFacade.fingerprint, backend)

    def tokens(self, texts: Sequence[str]) -> Tokenisation:
        return self._ask(EngineFacade.tokens, list(texts))

    def nearest(
        self,
        of: EmbedResult,
        *,
        passages: Sequence[str] | None = None,
        count: int = 3,
        patience: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Nearest:
        options: dict[str, object] = {"passages": passages, "count": count, "patience": patience}
        found: Nearest = self._connection.patient_link().call("nearest", (of,), options, cancel=cancel)
        return found

    # The façade: backends ---

    def refresh(self) -> tuple[BackendStatus, ...]:
        return self._ask(EngineFacade.refresh)

    def load(self, backend: BackendName) -> JobHandle:
        return self._start(EngineFacade.load, backend)

    def unload(self, backend: BackendName) -> JobHandle:
        return self._start(EngineFacade.unload, backend)

    def plan_switch(self, target: BackendName, *, keep_both: bool | None = None) -> SwitchPlan:
        return self._ask(EngineFacade.plan_switch, target, keep_both=keep_both)

    def switch(self, target: BackendName, *, keep_both: bool | None = None) -> JobHandle:
        return self._start(EngineFacade.switch, target, keep_both=keep_both)

    # The façade: a migration on trial, health ---

    def start_trial(self, trial: Trial) -> JobHandle:
        return self._start(EngineFacade.start_trial, trial)

    def trial(self) -> TrialReport | None:
        return self._quick(EngineFacade.trial)

    def stop_trial(self) -> TrialReport | None:
        return self._quick(EngineFacade.stop_trial)

    def health(self) -> Health:
        return self._quick(EngineFacade.health)

    def tune(self) -> JobHandle:
        return self._start(EngineFacade.tune)

    # The façade: models ---

    def model(self, *, online: bool = True) -> ModelStatus:
        return self._ask(EngineFacade.model, online=online)

    def download(self) -> JobHandle:
        return self._start(EngineFacade.download)

    def pull(self) -> JobHandle:
        return self._start(EngineFacade.pull)

    def verify(self) -> JobHandle:
        return self._start(EngineFacade.verify)

    def remove_model(self) -> JobHandle:
        return self._start(EngineFacade.remove_model)

    # The façade: benchmarks ---

    def benchmark(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        preset: str = "quick",
        title: str = "",
        minutes: float | None = None,
    ) -> JobHandle:
        return self._start(
            EngineFacade.benchmark, backends=backends, preset=preset, title=title, minutes=minutes
        )

    def resume_benchmark(self, run_id: int) -> JobHandle:
        return self._start(EngineFacade.resume_benchmark, run_id)

    def add_run(self, run: Run) -> Run:
        return self._ask(EngineFacade.add_run, run)

    def runs(self, limit: int = 100) -> tuple[RunSummary, ...]:
        return self._ask(EngineFacade.runs, limit)

    def run(self, run_id: int) -> Run:
        return self._ask(EngineFacade.run, run_id)

    def compare_runs(self, a: int, b: int) -> RunComparison:
        return self._ask(EngineFacade.compare_runs, a, b)

    # The façade: studies ---

    def check(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        texts: Sequence[str] | None = None,
        texts_name: str = "own texts",
    ) -> JobHandle:
        return self._start(EngineFacade.check, backends=backends, texts=texts, texts_name=texts_name)

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
    ) -> JobHandle:
        return self._start(
            EngineFacade.quality, backends=backends, vary=vary, sets=sets, split=split, queries=queries,
            documents=documents, threshold=threshold,
        )  # fmt: skip

    def coexist(
        self,
        *,
        backends: Sequence[BackendName] | None = None,
        model: str | None = None,
        rounds: int = 6,
        block_seconds: float = 10.0,
        least_kept: float = 0.8,
        most_slower: float = 2.0,
    ) -> JobHandle:
        return self._start(
            EngineFacade.coexist, backends=backends, model=model, rounds=rounds, block_seconds=block_seconds,
            least_kept=least_kept, most_slower=most_slower,
        )  # fmt: skip

    def claims(self) -> ClaimsReport:
        return self._ask(EngineFacade.claims)

    def check_changes(self) -> tuple[str, ...] | None:
        return self._ask(EngineFacade.check_changes)

    def studies(self, kind: str | None = None, limit: int = 100) -> tuple[StudySummary, ...]:
        return self._ask(EngineFacade.studies, kind, limit)

    def study(self, study_id: int) -> Study:
        return self._ask(EngineFacade.study, study_id)

    # The façade: history ---

    def history(
        self, since: float, until: float, *, metrics: Sequence[str] | None = None, points: int = 600
    ) -> History:
        return self._ask(EngineFacade.history, since, until, metrics=metrics, points=points)

    def recorded_span(self) -> tuple[float, float] | None:
        return self._ask(EngineFacade.recorded_span)

    def events(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        kinds: Sequence[str] | None = None,
        limit: int = 200,
    ) -> tuple[Event, ...]:
        return self._ask(EngineFacade.events, since, until, kinds=kinds, limit=limit)

    def annotate(self, at: float, text: str) -> Event:
        return self._ask(EngineFacade.annotate, at, text)

    def export_csv(
        self, target: Path, since: float, until: float, *, metrics: Sequence[str] | None = None
    ) -> int:
        """The table comes over and is written here, by the rights of this process."""
        options: dict[str, object] = {"metrics": metrics}
        with whole_file(target) as part:
            rows, content = self._connection.patient_link().call("export_csv", (since, until), options)
            part.write_bytes(content)
        return int(rows)

    # The façade: the machine ---

    def doctor(self) -> tuple[Finding, ...]:
        return self._ask(EngineFacade.doctor)

    def close(self) -> None:
        """Detach. The engine over there goes on, and so do its jobs."""
        self._connection.close()

    # Asking ---

    def _ask(self, method: Callable[Concatenate[EngineFacade, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = self._connection.patient_link().call(method.__name__, args, dict(kwargs))
        return answer

    def _quick(
        self, method: Callable[Concatenate[EngineFacade, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        answer: T = self._connection.link().call(method.__name__, args, dict(kwargs), timeout=QUICK_S)
        return answer

    def _start(
        self, method: Callable[Concatenate[EngineFacade, P], JobHandle], *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle:
        link = self._connection.link()
        update: JobUpdate = link.call(method.__name__, args, dict(kwargs), timeout=QUICK_S)
        jobs, instance = self._connection.jobs, link.hello.instance
        jobs.note(instance, update)
        return RemoteJob(jobs, instance, update, lambda: self._cancel(instance, update.job_id))

    def _cancel(self, instance: str, job_id: int) -> None:
        if instance == self._connection.instance:  # else that number is another's by now
            with suppress(ConnectionLostError):
                self.cancel_job(job_id)


def _conforms(engine: RemoteEngine, job: RemoteJob) -> tuple[EngineFacade, JobHandle]:
    """For the type checker."""
    return engine, job
