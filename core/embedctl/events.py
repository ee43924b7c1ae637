"""What the engine publishes, and the bus that carries it.

Publishers are threads; subscribers get each message on the publisher's thread and must return at once
(the console's bridge only puts it aside). A subscriber that raises is dropped with a log line, so that one
broken face cannot stop the sampler.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from embedctl.records import BackendStatus, Event, GpuProcess, JobUpdate, Machine, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SampleTaken:
    sample: Sample
    processes: tuple[GpuProcess, ...]
    recording: bool
    """Whether the samples before this one were stored: it changes while an engine runs, and none says so
    but the samples themselves."""


@dataclass(frozen=True, slots=True)
class MachineSeen:
    machine: Machine


@dataclass(frozen=True, slots=True)
class BackendChanged:
    status: BackendStatus


@dataclass(frozen=True, slots=True)
class ActiveChanged:
    active: str


@dataclass(frozen=True, slots=True)
class JobChanged:
    update: JobUpdate


@dataclass(frozen=True, slots=True)
class EventRecorded:
    event: Event


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """An engine that is attached to a running service tells this at once to each new subscriber, and later
    when the connection is lost or back; an engine of one's own never does."""

    connected: bool
    where: str
    """The service in a few words, such as `the service (PID 4711)`."""
    why: str = ""
    remedy: str = ""
    place: str = ""
    """The machine that the service runs on; empty on this one."""


Message = (
    SampleTaken
    | MachineSeen
    | BackendChanged
    | ActiveChanged
    | JobChanged
    | EventRecorded
    | ConnectionChanged
)
Subscriber = Callable[[Message], None]


def superseding_key(message: Message) -> Hashable:
    """Of the messages with one key the latest says it all; dated facts have a key each."""
    if isinstance(message, EventRecorded):
        return id(message), message.event.at, message.event.title
    if isinstance(message, JobChanged):
        return JobChanged, message.update.job_id
    if isinstance(message, BackendChanged):
        return BackendChanged, message.status.name
    return type(message).__name__


class EventBus:
    """Delivers each message to every subscriber, in the order published by one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Add `subscriber`; the returned function takes it off again."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)

        return unsubscribe

    def publish(self, message: Message) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(message)
            except Exception:
                log.exception("a subscriber failed on %s and was taken off", type(message).__name__)
                with self._lock:
                    self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)
