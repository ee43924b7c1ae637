"""The jobs of another process's engine, as far as a client has heard of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from embedctl.records import Failure, JobState, JobUpdate

_KEPT: Final = 100


class RemoteJobs:
    """The last word of each job, by instance over there and number; numbers begin again with each."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._last: dict[tuple[str, int], JobUpdate] = {}
        self._lost: set[tuple[str, int]] = set()
        """Jobs whose last word is ours, not theirs."""
        self._before: tuple[str, int] = ("", 0)
        """An instance, and the highest number of a job that it had when it was first met."""

    def meet(self, instance: str, jobs: int, running: Iterable[JobUpdate]) -> None:
        """Begin with an instance: of its jobs so far only these run, and how the others ended is no news."""
        with self._changed:
            if self._before[0] != instance:
                self._before = instance, jobs
        for update in running:
            self.note(instance, update)

    def note(self, instance: str, update: JobUpdate) -> bool:
        """Keep what a job tells; whether that is news.

        It is none once the job's end is known: the answer to its start may come after the news of its end,
        and after a loss of the connection all last words are said again.
        """
        key = instance, update.job_id
        over = update.state is not JobState.RUNNING
        with self._changed:
            known = self._last.get(key)
            if known is None and over and instance == self._before[0] and update.job_id <= self._before[1]:
                return False
            if known is not None and known.state is not JobState.RUNNING and key not in self._lost:
                return False
            self._last[key] = update
            self._lost.discard(key)
            if len(self._last) > _KEPT:
                self._forget_one(but=key)
            self._changed.notify_all()
            return True

    def _forget_one(self, *, but: tuple[str, int]) -> None:
        """Of the jobs that have ended the oldest; what runs is waited for."""
        for key, last in self._last.items():
            if last.state is not JobState.RUNNING and key != but:
                del self._last[key]
                self._lost.discard(key)
                return

    def last_word(self, instance: str, known: JobUpdate) -> JobUpdate:
        """What was last heard of a job; `known` if that was forgotten."""
        with self._changed:
            return self._last.get((instance, known.job_id), known)

    def wait_for(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something that was heard makes the condition true; false after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def lose(self, why: str, *, but: str = "") -> tuple[JobUpdate, ...]:
        """Take every running job for failed, except those of one instance; returns their last words."""
        failure = Failure(
            "It is not known how this ended", why, "the job may go on over there: `embedctl status` shows it"
        )
        with self._changed:
            lost = {
                key: replace(update, state=JobState.FAILED, failure=failure, rate=None, eta=None)
                for key, update in self._last.items()
                if update.state is JobState.RUNNING and key[0] != but
            }
            self._last.update(lost)
            self._lost.update(lost)
            self._changed.notify_all()
        return tuple(lost.values())


class RemoteJob:
    """A job over there; fulfils `JobHandle`.

    Args:
        cancel: Passes the wish to stop on; must not raise.
    """

    def __init__(
        self, jobs: RemoteJobs, instance: str, update: JobUpdate, cancel: Callable[[], None]
    ) -> None:
        self._jobs = jobs
        self._instance = instance
        self._update = update
        self._cancel = cancel

    @property
    def id(self) -> int:
        return self._update.job_id

    @property
    def update(self) -> JobUpdate:
        self._update = self._jobs.last_word(self._instance, self._update)
        return self._update

    def cancel(self) -> None:
        self._cancel()

    def wait(self, timeout: float | None = None) -> JobUpdate:
        if not self._jobs.wait_for(lambda: self.update.state is not JobState.RUNNING, timeout):
            raise TimeoutError(f"{self._update.title} still runs after {timeout:g} s")
        return self._update
