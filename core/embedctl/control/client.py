"""An engine that runs in another process, behind the façade of one that runs in this."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from embedctl.control.jobs import RemoteJob, RemoteJobs
from embedctl.control.link import Link
from embedctl.engine.facade import EngineFacade, JobHandle
from embedctl.errors import ConnectionLostError, EmbedctlError, ServiceError
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    EventBus,
    JobChanged,
    MachineSeen,
    Message,
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
    Run,
    RunComparison,
    RunSummary,
    Status,
    Study,
    StudySummary,
    SwitchPlan,
    Trial,
    TrialReport,
)
from embedctl.series import History
from embedctl.settings import ConsoleSettings, Settings

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

Dial = Callable[[], socket.socket | None]
"""Makes a connection; None when nobody listens any more. May raise `ServiceError`."""

_QUICK_S: Final = 10.0
"""Within this a call is answered that does no work; a screen may be waiting for it."""
_PATIENCE_S: Final = 5.0
"""How long a slow call waits for a lost connection to come back."""
_GIVE_UP_S: Final = 10.0
"""After this, jobs are told to be lost with the connection."""
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to connect anew; the last one again and again."""


class RemoteEngine:
    """Fulfils `EngineFacade` through a connection that is made anew whenever it is lost. Thread-safe.

    Every call may raise `ConnectionLostError`; `status` then answers what was last known. Subscribers are
    told of a loss and of the return by `ConnectionChanged`, and after a return how everything stands.

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
        self._dial = dial
        self._paths = paths
        self._place = place
        self._console = console
        self._bus = EventBus()
        self._changed = threading.Condition()
        self._jobs = RemoteJobs()
        self._closing = threading.Event()
        self._subscribed = False
        self._link: Link | None = None
        self._connection = ConnectionChanged(False, "the service")
        self._instance = ""
        self._connect()

    @property
    def connection(self) -> ConnectionChanged:
        """How it stands with the connection."""
        return self._connection

    # The façade: state ---

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def paths(self) -> Paths:
        return self._paths

    def status(self) -> Status:
        try:
            self._status = self._quick(EngineFacade.status)
        except EmbedctlError as error:
            log.debug("the last known status is given: %s", error)
        return self._status

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        unsubscribe = self._bus.subscribe(subscriber)
        self._subscribed = True
        if self._link is not None:
            self._link.send("subscribe")
        subscriber(self._connection)
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
        patience = None if timeout is None else timeout + _QUICK_S
        result: EmbedResult = self._patient_link().call(
            "embed", (list(texts),), options, timeout=patience, cancel=cancel
        )
        return result

    def fingerprint(self, backend: BackendName | None = None) -> Fingerprint:
        return self._quick(EngineFacade.fingerprint, backend)

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
        self, *, backends: Sequence[BackendName] | None = None, preset: str = "quick", title: str = ""
    ) -> JobHandle:
        return self._start(EngineFacade.benchmark, backends=backends, preset=preset, title=title)

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
            rows, content = self._patient_link().call("export_csv", (since, until), options)
            part.write_bytes(content)
        return int(rows)

    # The façade: the machine ---

    def doctor(self) -> tuple[Finding, ...]:
        return self._ask(EngineFacade.doctor)

    def close(self) -> None:
        """Detach. The engine over there goes on, and so do its jobs."""
        self._closing.set()
        with self._changed:
            link, self._link = self._link, None
        if link is not None:
            link.close()
        self._lose_jobs("this process has detached")

    # Asking ---

    def _ask(self, method: Callable[Concatenate[EngineFacade, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        answer: T = self._patient_link().call(method.__name__, args, dict(kwargs))
        return answer

    def _quick(
        self, method: Callable[Concatenate[EngineFacade, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        answer: T = self._link_now().call(method.__name__, args, dict(kwargs), timeout=_QUICK_S)
        return answer

    def _start(
        self, method: Callable[Concatenate[EngineFacade, P], JobHandle], *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle:
        link = self._link_now()
        update: JobUpdate = link.call(method.__name__, args, dict(kwargs), timeout=_QUICK_S)
        self._jobs.note(link.hello.instance, update)
        instance = link.hello.instance
        return RemoteJob(self._jobs, instance, update, lambda: self._cancel(instance, update.job_id))

    def _link_now(self) -> Link:
        link = self._link
        if link is None:
            raise ConnectionLostError(
                f"{self._connection.where} cannot be reached".capitalize(),
                why=self._connection.why or "this process has detached from it",
                remedy=self._connection.remedy,
            )
        return link

    def _patient_link(self) -> Link:
        with self._changed:
            self._changed.wait_for(lambda: self._link is not None or self._closing.is_set(), _PATIENCE_S)
        return self._link_now()

    def _cancel(self, instance: str, job_id: int) -> None:
        if instance == self._instance:  # else that number is another's by now
            with suppress(ConnectionLostError):
                self.cancel_job(job_id)

    def _lose_jobs(self, why: str, *, but: str = "") -> None:
        for update in self._jobs.lose(why, but=but):
            self._bus.publish(JobChanged(update))

    # The connection ---

    def _connect(self) -> None:
        """Make a connection and take in how things stand.

        Raises:
            ServiceError: Nobody listens, or who does cannot be used.
            ConnectionLostError: It broke at once.
        """
        connection = self._dial()
        if connection is None:
            raise ServiceError(
                "No embedctl service is running",
                why="nobody listens on its socket",
                remedy="start it with `embedctl service start`, or leave and start anew",
            )
        link = Link(connection, on_message=self._take, on_lost=self._lost, instance=self._instance)
        if self._subscribed:  # first, so that nothing happens unseen after the look at the status
            link.send("subscribe")
        try:
            settings: Settings = link.call("settings", (), {}, timeout=_QUICK_S)
            status: Status = link.call("status", (), {}, timeout=_QUICK_S)
        except BaseException:
            link.close()
            raise
        self._settings = (
            settings if self._console is None else settings.model_copy(update={"console": self._console})
        )
        self._status = status
        self._instance = link.hello.instance
        where = link.hello.title + (f" on {self._place}" if self._place else "")
        self._lose_jobs(f"{where} was started anew", but=self._instance)
        with self._changed:
            self._link = link
            self._connection = ConnectionChanged(True, where, place=self._place)
            self._changed.notify_all()
        if link.ended:  # before it was ours to lose
            self._lost(link)

    def _take(self, link: Link, message: Message) -> None:
        if isinstance(message, JobChanged):
            self._jobs.note(link.hello.instance, message.update)
        self._bus.publish(message)

    def _lost(self, link: Link) -> None:
        with self._changed:
            if self._link is not link:
                return
            self._link = None
            self._connection = ConnectionChanged(
                False,
                self._connection.where,
                "it ended, or the way to it broke",
                "it is connected anew by itself once it is back; `embedctl service status` tells more",
                self._place,
            )
        self._bus.publish(self._connection)
        threading.Thread(target=self._return, name="control-return", daemon=True).start()

    def _return(self) -> None:
        """Connect anew, again and again."""
        attempt, give_up = 0, time.monotonic() + _GIVE_UP_S
        while not self._closing.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)]):
            attempt += 1
            try:
                self._connect()
            except EmbedctlError as error:
                self._connection = replace(self._connection, why=error.why or error.what, remedy=error.remedy)
            else:
                self._catch_up()
                return
            if time.monotonic() >= give_up:
                self._lose_jobs(f"the connection to {self._connection.where} was lost")

    def _catch_up(self) -> None:
        """Tell subscribers how things stand after a pause in the news."""
        if self._closing.is_set():
            self.close()
            return
        status = self._status
        self._bus.publish(self._connection)
        if status.machine is not None:
            self._bus.publish(MachineSeen(status.machine))
        for backend in status.backends:
            self._bus.publish(BackendChanged(backend))
        self._bus.publish(ActiveChanged(status.active))
        for update in status.jobs:
            self._jobs.note(self._instance, update)
            self._bus.publish(JobChanged(update))


def _conforms(engine: RemoteEngine, job: RemoteJob) -> tuple[EngineFacade, JobHandle]:
    """For the type checker."""
    return engine, job
