"""Jobs: long work on a thread of its own, with progress, cancel and one record of how it ended.

Jobs of one group exclude each other (two switches at once make no sense), jobs of different groups do not
(a download goes on while a benchmark runs).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from embedctl.errors import Cancelled, EmbedctlError, UsageError
from embedctl.progress import CancelToken
from embedctl.records import Failure, JobState, JobUpdate, ProgressItem, StepRecord

log = logging.getLogger(__name__)

Work = Callable[["Job"], object]

_PUBLISH_EVERY = 0.1
"""Seconds between two updates of the same step: more often no face can show."""
_RATE_WINDOW = 5.0
"""Seconds over which a rate is taken."""


class Job:
    """One piece of long work; it is its own `Progress` (call it) and fulfils `JobHandle`."""

    def __init__(
        self,
        job_id: int,
        kind: str,
        title: str,
        publish: Callable[[JobUpdate], None],
        clock: Callable[[], float],
    ) -> None:
        self.cancel_token = CancelToken()
        self._publish = publish
        self._clock = clock
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._last_published = 0.0
        self._progress: deque[tuple[float, float]] = deque()
        self._update = JobUpdate(job_id, kind, title, JobState.RUNNING, "", clock())

    @property
    def id(self) -> int:
        return self._update.job_id

    @property
    def update(self) -> JobUpdate:
        return self._update

    def cancel(self) -> None:
        self.cancel_token.cancel()

    def wait(self, timeout: float | None = None) -> JobUpdate:
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self._update.title} still runs after {timeout:g} s")
        return self._update

    def __call__(
        self,
        step: str,
        *,
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        items: tuple[ProgressItem, ...] = (),
    ) -> None:
        """Tell progress (`embedctl.progress.Progress`)."""
        with self._lock:
            now = time.monotonic()
            same_step = step == self._update.step
            if not same_step:
                self._progress.clear()
            rate = self._rate(now, done)
            eta = (total - done) / rate if rate and total is not None and done is not None else None
            self._update = replace(
                self._update, step=step, done=done, total=total, unit=unit, items=items, rate=rate, eta=eta
            )
            if same_step and now - self._last_published < _PUBLISH_EVERY:
                return
            self._last_published = now
            update = self._update
        self._publish(update)

    def show_steps(self, steps: tuple[StepRecord, ...]) -> None:
        """Replace the list of the job's named steps and publish at once."""
        with self._lock:
            self._update = replace(self._update, steps=steps)
            update = self._update
        self._publish(update)

    def _rate(self, now: float, done: float | None) -> float | None:
        if done is None:
            return None
        self._progress.append((now, done))
        while now - self._progress[0][0] > _RATE_WINDOW and len(self._progress) > 2:
            self._progress.popleft()
        (first_at, first), (last_at, last) = self._progress[0], self._progress[-1]
        return (last - first) / (last_at - first_at) if last_at - first_at > 0.2 and last > first else None

    def run(self, work: Work) -> None:
        """Do the work on this thread and record how it ended; never raises."""
        state, failure, result = JobState.DONE, None, None
        try:
            result = work(self)
        except Cancelled:
            state = JobState.CANCELLED
        except EmbedctlError as error:
            state, failure = JobState.FAILED, Failure(error.what, error.why, error.remedy)
        except Exception as error:
            log.exception("%s failed unexpectedly", self._update.title)
            state = JobState.FAILED
            failure = Failure(
                f"{self._update.title} failed unexpectedly",
                f"{type(error).__name__}: {error}",
                "the log has the details; please report it as a bug",
            )
        with self._lock:
            self._update = replace(
                self._update, state=state, failure=failure, result=result, rate=None, eta=None
            )
        self._ended.set()
        self._publish(self._update)


class JobRunner:
    """Starts jobs and knows which ones run."""

    def __init__(
        self,
        publish: Callable[[JobUpdate], None],
        clock: Callable[[], float] = time.time,
        *,
        admit: Callable[[str, str, str], None] = lambda *_: None,
    ) -> None:
        """`admit` raises `UsageError` for a job that may not start now, for what is no job itself."""
        self._publish = publish
        self._clock = clock
        self._admit = admit
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._running: dict[str, tuple[Job, threading.Thread]] = {}
        self._closed = False

    def start(self, group: str, kind: str, title: str, work: Work) -> Job:
        """Run `work` on a new thread.

        Raises:
            UsageError: Another job of the group runs, something else excludes it, or the engine is closing.
        """
        with self._lock:
            if self._closed:
                raise UsageError(
                    "Nothing can be started any more", why="embedctl is closing", remedy="start it again"
                )
            busy = self._running.get(group)
            if busy is not None and busy[0].update.state is JobState.RUNNING:
                raise UsageError(
                    f"{title}: not started",
                    why=f"“{busy[0].update.title}” is still running",
                    remedy="wait for it, or cancel it first",
                )
            self._admit(group, kind, title)
            job = Job(next(self._ids), kind, title, self._publish, self._clock)
            thread = threading.Thread(
                target=self._run, args=(group, job, work), name=f"job-{kind}", daemon=True
            )
            self._running[group] = (job, thread)
        self._publish(job.update)
        thread.start()
        return job

    def _run(self, group: str, job: Job, work: Work) -> None:
        job.run(work)
        with self._lock:
            if self._running.get(group, (None,))[0] is job:
                del self._running[group]

    def running(self) -> tuple[JobUpdate, ...]:
        with self._lock:
            jobs = [job for job, _ in self._running.values()]
        return tuple(job.update for job in jobs if job.update.state is JobState.RUNNING)

    def cancel(self, job_id: int) -> None:
        """Ask the job to stop; nothing happens if it does not run."""
        with self._lock:
            jobs = [job for job, _ in self._running.values()]
        for job in jobs:
            if job.id == job_id:
                job.cancel()

    def close(self, timeout: float = 15.0) -> None:
        """Cancel every job and wait for their ends; no new one starts afterwards."""
        with self._lock:
            self._closed = True
            entries = list(self._running.values())
        for job, _ in entries:
            job.cancel()
        deadline = time.monotonic() + timeout
        for job, thread in entries:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s did not end within %g s of being cancelled", job.update.title, timeout)
