"""What the console knows at this moment, kept up to date from the engine's messages. No Textual here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Flag, auto
from typing import Final

from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    JobChanged,
    MachineSeen,
    Message,
    SampleTaken,
)
from embedctl.records import (
    BackendHealth,
    BackendName,
    BackendState,
    BackendStatus,
    Event,
    Health,
    JobState,
    JobUpdate,
    ModelStatus,
    Status,
    StudySummary,
    TrialReport,
)
from embedctl_console.actions import Keymap, key_of
from embedctl_console.recent import RecentSamples

_EVENTS_KEPT: Final = 100


class Topic(Flag):
    """What a message changed; screens redraw only what depends on it."""

    NOTHING = 0
    MACHINE = auto()
    """The machine, or whether it is recorded."""
    BACKENDS = auto()
    """A backend's state, or which one is active."""
    JOBS = auto()
    SAMPLE = auto()
    EVENTS = auto()
    MODEL = auto()
    CONNECTION = auto()
    """Whether the service that the console is attached to answers."""
    HEALTH = auto()
    """How the backends do, and what the trial has shown."""
    VERDICT = auto()
    """What the last check said, and whether that still stands."""
    KEYS = auto()
    """Which keys the user has chosen."""
    ALL = MACHINE | BACKENDS | JOBS | SAMPLE | EVENTS | MODEL | CONNECTION | HEALTH | VERDICT | KEYS


@dataclass(frozen=True, slots=True)
class Standing:
    """The last check, what has changed since in what it depends on, and what the other studies said."""

    check: StudySummary | None
    """None: there was no check."""
    changes: tuple[str, ...] = ()
    """Empty: the answer still stands."""
    others: tuple[StudySummary, ...] = ()
    """The last study of every other kind, as far as there is one."""


@dataclass(slots=True)
class ConsoleState:
    """The engine's last word on everything, and the last quarter of an hour of samples."""

    status: Status
    events: list[Event] = field(default_factory=list)
    """Newest first."""
    recent: RecentSamples = field(default_factory=RecentSamples)
    model: ModelStatus | None = None
    model_note: str = ""
    """Why nothing is known of the model, when nothing is."""
    hub_asked: float | None = None
    """When the Hub was asked about the model, by the console's clock; None once it has answered."""
    connection: ConnectionChanged | None = None
    """How it stands with the service that the console is attached to; None with an engine of its own."""
    health: Health | None = None
    """None until the engine was asked, or while it cannot be."""
    trial: TrialReport | None = None
    """What the running trial has shown; None without one."""
    standing: Standing | None = None
    """None until the engine was asked."""
    switched: Event | None = None
    """The last switch that is known."""
    keymap: Keymap = field(default_factory=dict)
    """Keys that the user has chosen, as far as they can be used."""
    cancelling: set[int] = field(default_factory=set)
    """Ids of running jobs that were asked to stop."""
    ended: dict[str, JobUpdate] = field(default_factory=dict)
    """By kind, how the last job of that kind ended in this session."""

    def apply(self, message: Message) -> Topic:
        """Take in one message and say what it changed."""
        status = self.status
        if isinstance(message, SampleTaken):
            self.status = replace(
                status, sample=message.sample, processes=message.processes, recording=message.recording
            )
            self.recent.add(message.sample)
            return Topic.SAMPLE if message.recording is status.recording else Topic.SAMPLE | Topic.MACHINE
        if isinstance(message, JobChanged):
            self._take_job(message.update)
            return Topic.JOBS
        if isinstance(message, BackendChanged):
            changed = message.status
            known = tuple(changed if old.name == changed.name else old for old in status.backends)
            self.status = replace(status, backends=known if changed in known else (*known, changed))
            return Topic.BACKENDS
        if isinstance(message, ActiveChanged):
            self.status = replace(status, active=message.active)
            return Topic.BACKENDS
        if isinstance(message, MachineSeen):
            self.status = replace(status, machine=message.machine)
            return Topic.MACHINE
        if isinstance(message, ConnectionChanged):
            self.connection = message
            return Topic.CONNECTION
        if message.event.kind == "switch":
            self.switched = message.event
        self.events.insert(0, message.event)
        del self.events[_EVENTS_KEPT:]
        return Topic.EVENTS

    def apply_all(self, messages: Iterable[Message]) -> Topic:
        changed = Topic.NOTHING
        for message in messages:
            changed |= self.apply(message)
        return changed

    def take_stored_events(self, stored: Iterable[Event]) -> None:
        """Put what the store holds among what was heard, which may be older than the oldest of it."""
        stored = list(stored)
        known = {(event.at, event.title) for event in stored}
        heard = [event for event in self.events if (event.at, event.title) not in known]
        newest_first = sorted([*heard, *stored], key=lambda event: -event.at)
        self.events[:] = newest_first[:_EVENTS_KEPT]

    def take_stored_switch(self, stored: Iterable[Event]) -> None:
        """Take the last switch of the store's (newest first), unless a later one was heard of."""
        for event in stored:
            if self.switched is None or event.at > self.switched.at:
                self.switched = event
            return

    def _take_job(self, update: JobUpdate) -> None:
        others = tuple(job for job in self.status.jobs if job.job_id != update.job_id)
        if update.state is JobState.RUNNING:
            self.ended.pop(update.kind, None)
            others = (*others, self._told(update))
        else:
            self.cancelling.discard(update.job_id)
            self.ended[update.kind] = update
        self.status = replace(self.status, jobs=others)

    def asked_to_stop(self, job_id: int) -> None:
        """Have a running job say that it is about to end, which may take until its next step."""
        if any(job.job_id == job_id for job in self.status.jobs):
            self.cancelling.add(job_id)
            self.status = replace(self.status, jobs=tuple(map(self._told, self.status.jobs)))

    def _told(self, job: JobUpdate) -> JobUpdate:
        return replace(job, step="is being cancelled") if job.job_id in self.cancelling else job

    # Questions that several screens ask

    def running(self, *kinds: str) -> JobUpdate | None:
        """The newest running job, of one of `kinds` if any are named."""
        for job in reversed(self.status.jobs):
            if not kinds or job.kind in kinds:
                return job
        return None

    def backend(self, name: BackendName) -> BackendStatus | None:
        return next((status for status in self.status.backends if status.name == name), None)

    def health_of(self, name: BackendName) -> BackendHealth | None:
        found = self.health.backends if self.health is not None else ()
        return next((health for health in found if health.backend == name), None)

    def key(self, action_id: str) -> str:
        """The key of an action as it is printed, the user's own if there is one."""
        return key_of(action_id, self.keymap)

    def ready(self, name: BackendName) -> bool:
        status = self.backend(name)
        return status is not None and status.state is BackendState.READY

    @property
    def active_since(self) -> float | None:
        """When the active backend became that; None if no switch to it is known."""
        switched = self.switched
        return switched.at if switched is not None and switched.backend == self.status.active else None

    @property
    def any_ready(self) -> bool:
        return any(status.state is BackendState.READY for status in self.status.backends)
