"""A link to a running engine that is made anew whenever it is lost, and what was last heard through it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from embedctl.control.jobs import RemoteJobs
from embedctl.control.link import Link
from embedctl.errors import ConnectionLostError, EmbedctlError, ServiceError
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    JobChanged,
    MachineSeen,
    Message,
)
from embedctl.records import JobUpdate, Status
from embedctl.settings import Settings

Dial = Callable[[], socket.socket | None]
"""Makes a connection; None when nobody listens any more. May raise `ServiceError`."""

QUICK_S: Final = 10.0
"""Within this a call is answered that does no work; a screen may be waiting for it."""
_PATIENCE_S: Final = 5.0
"""How long a slow call waits for a lost connection to come back."""
_GIVE_UP_S: Final = 10.0
"""After this, jobs are told to be lost with the connection."""
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to connect anew; the last one again and again."""


class Connection:
    """Connects at once, and again by itself after a loss, until it is closed. Thread-safe.

    Args:
        dial: Makes a connection.
        publish: Gets the messages from over there, and how it stands with the connection.
        place: Where the other process runs, if that is another machine.

    Raises:
        ServiceError: Nobody listens, or who does cannot be used.
    """

    settings: Settings
    status: Status
    """As last known."""

    def __init__(self, dial: Dial, publish: Callable[[Message], None], *, place: str = "") -> None:
        self._dial = dial
        self._publish = publish
        self._place = place
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._telling = threading.RLock()
        self._subscribed = False
        self._link: Link | None = None
        self.jobs = RemoteJobs()
        self.state = ConnectionChanged(False, "the service")
        self.instance = ""
        """Which start of the other process it is connected to."""
        self._connect()

    def link(self) -> Link:
        """The link as it is.

        Raises:
            ConnectionLostError: There is none at the moment.
        """
        link = self._link
        if link is None:
            raise ConnectionLostError(
                f"{self.state.where[:1].upper()}{self.state.where[1:]} cannot be reached",
                why=self.state.why or "this process has detached from it",
                remedy=self.state.remedy,
            )
        return link

    def patient_link(self) -> Link:
        """The link, for which a while is waited where it is lost.

        Raises:
            ConnectionLostError: It did not come back.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._usable or self._closing.is_set(), _PATIENCE_S)
        return self.link()

    @property
    def _usable(self) -> bool:
        """Whether a link stands: one that has just broken is there until its loss is taken in."""
        return self._link is not None and not self._link.ended

    def subscribe(self) -> None:
        """Have all messages sent from now on, not those of jobs alone."""
        self._subscribed = True
        if self._link is not None:
            self._link.send("subscribe")

    def close(self) -> None:
        """End it for good. The engine over there goes on, and so do its jobs."""
        self._closing.set()
        with self._changed:
            link, self._link = self._link, None
            self._changed.notify_all()
        if link is not None:
            link.close()
        self._lose_jobs("this process has detached")

    def _lose_jobs(self, why: str, *, but: str = "") -> None:
        for update in self.jobs.lose(why, but=but):
            self._publish(JobChanged(update))

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
        link = Link(connection, on_message=self._take, on_lost=self._lost, instance=self.instance)
        if self._subscribed:  # first, so that nothing happens unseen after the look at the status
            link.send("subscribe")
        try:
            self.settings = link.call("settings", (), {}, timeout=QUICK_S)
            self.status = link.call("status", (), {}, timeout=QUICK_S)
        except BaseException:
            link.close()
            raise
        self.instance = link.hello.instance
        self.jobs.meet(self.instance, link.hello.jobs, self.status.jobs)
        where = link.hello.title + (f" on {self._place}" if self._place else "")
        self._lose_jobs(f"{where} was started anew", but=self.instance)
        with self._changed:
            self._link = link
            self.state = ConnectionChanged(True, where, place=self._place)
            self._changed.notify_all()
        if link.ended:  # before it was ours to lose
            self._lost(link)

    def _take(self, link: Link, message: Message) -> None:
        if isinstance(message, JobChanged):
            self._tell_job(link.hello.instance, message.update)
        else:
            self._publish(message)

    def _tell_job(self, instance: str, update: JobUpdate) -> None:
        """Publish where a job stands, if that is news; never that it runs after how it ended."""
        with self._telling:
            if self.jobs.note(instance, update):
                self._publish(JobChanged(update))

    def _lost(self, link: Link) -> None:
        with self._changed:
            if self._link is not link:
                return
            self._link = None
            self.state = ConnectionChanged(
                False,
                self.state.where,
                link.ended_by,
                "it is connected anew by itself once it is back; `embedctl service status` tells more",
                self._place,
            )
        self._publish(self.state)
        threading.Thread(target=self._return, name="control-return", daemon=True).start()

    def _return(self) -> None:
        """Connect anew, again and again."""
        attempt, give_up = 0, time.monotonic() + _GIVE_UP_S
        while not self._closing.wait(_PAUSES[min(attempt, len(_PAUSES) - 1)]):
            attempt += 1
            try:
                self._connect()
            except EmbedctlError as error:
                self.state = replace(self.state, why=error.why or error.what, remedy=error.remedy)
            else:
                self._catch_up()
                return
            if time.monotonic() >= give_up:
                self._lose_jobs(f"the connection to {self.state.where} was lost")

    def _catch_up(self) -> None:
        """Tell how things stand after a pause in the news."""
        if self._closing.is_set():
            self.close()
            return
        status = self.status
        self._publish(self.state)
        if status.machine is not None:
            self._publish(MachineSeen(status.machine))
        for backend in status.backends:
            self._publish(BackendChanged(backend))
        self._publish(ActiveChanged(status.active))
        for update in status.jobs:
            self._tell_job(self.instance, update)
