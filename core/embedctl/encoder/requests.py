"""The requests that wait for the device, and which of their texts make the next batch."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from embedctl.encoder.jobs import Item, Job

_SMALL_TOKENS = 1024
"""A request with no more tokens left than these goes before bulk jobs."""


@dataclass(slots=True)
class Part:
    """What one request has in a batch."""

    job: Job
    items: list[Item]


class Requests:
    """The open requests in the order in which they are served. Safe to use from any thread.

    Args:
        turn: Guards the requests (its lock is held for moments only); notified of each one that ends.
    """

    def __init__(self, turn: threading.Condition) -> None:
        self._turn = turn
        self._jobs: deque[Job] = deque()
        self._submitted: list[Job] = []
        """Those of the jobs that nobody waits for."""

    @property
    def any_submitted(self) -> bool:
        return bool(self._submitted)

    def add(self, job: Job, *, submitted: bool = False) -> None:
        """Take a request; a `submitted` one stays until `take_finished`, any other until `remove`."""
        with self._turn:
            self._jobs.append(job)
            if submitted:
                self._submitted.append(job)

    def remove(self, job: Job) -> None:
        with self._turn:
            if job in self._jobs:
                self._jobs.remove(job)

    def take_finished(self) -> list[Job]:
        """The submitted requests that are finished; they are not known here any more."""
        with self._turn:
            finished = [job for job in self._submitted if job.is_finished()]
            for job in finished:
                self._submitted.remove(job)
                self._jobs.remove(job)
        return finished

    def waiting(self) -> list[Job]:
        with self._turn:
            return [job for job in self._jobs if not job.is_finished()]

    def end(self, job: Job, error: BaseException) -> None:
        """Fail a whole request."""
        job.error = error
        job.abandon()
        self.notify()

    def notify(self) -> None:
        """Have everybody who waits look again."""
        with self._turn:
            self._turn.notify_all()

    def small(self, room: int, texts: int) -> list[Part]:
        """A batch of small requests: up to `texts` texts of at most `room` tokens together."""
        parts: list[Part] = []
        for job in self.waiting():
            if not _is_small(job) or not _agree(parts, job):
                continue
            if items := _take(job, room, texts, alone=not parts):
                parts.append(Part(job, items))
                room -= sum(len(ids) for _, ids in items)
                texts -= len(items)
        return parts

    def bulk(self, room: int, texts: int, *, wait: bool) -> list[Part]:
        """A batch of the bulk jobs in turn; with `wait`, tokens are waited for."""
        parts: list[Part] = []
        for job in self.waiting():
            if (_is_small(job) and job.ready_tokens) or not _agree(parts, job):
                continue
            try:
                job.prepare(room, wait=wait and not parts)
            except Exception as error:  # of a tokenizer: that request's own trouble
                self.end(job, error)
                continue
            if job.ready_tokens < room and not job.all_ready and not wait:
                continue  # half a batch wastes the device; more tokens are on their way
            items = _take(job, room, texts, alone=not parts)
            if not items:
                continue
            parts.append(Part(job, items))
            room -= sum(len(ids) for _, ids in items)
            texts -= len(items)
            if room <= 0 or texts <= 0 or job.most_texts is not None:
                break
        self._to_the_back(parts)
        return parts

    def _to_the_back(self, served: list[Part]) -> None:
        with self._turn:
            for part in served:
                if part.job in self._jobs:
                    self._jobs.remove(part.job)
                    self._jobs.append(part.job)


def _take(job: Job, room: int, texts: int, *, alone: bool) -> list[Item]:
    """What fits of a request; for one `alone` in its batch also a single text beyond the room."""
    items = job.take(room, min(texts, job.most_texts or texts))
    if not items and alone and job.next_length():
        return job.take(job.next_length(), 1)
    return items


def _is_small(job: Job) -> bool:
    return job.all_ready and job.ready_tokens <= _SMALL_TOKENS


def _agree(parts: list[Part], job: Job) -> bool:
    """One batch is normalised as a whole."""
    return not parts or parts[0].job.normalize == job.normalize
