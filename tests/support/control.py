"""An engine behind a real control socket, and clients of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from embedctl.control.attach import attach
from embedctl.control.client import RemoteEngine
from embedctl.control.endpoint import Endpoint
from embedctl.control.server import ControlServer
from embedctl.engine import EngineFacade
from embedctl.events import Message
from embedctl.paths import Paths


class Heard:
    """A subscriber that keeps what it hears and lets a test wait for something."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._changed = threading.Condition()

    def __call__(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[list[Message]], bool], timeout: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.messages), timeout), self.messages

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]


@contextmanager
def served(engine: EngineFacade, home: Path, role: str = "service") -> Iterator[ControlServer]:
    """The engine offered on the socket of `home`."""
    server = ControlServer(engine, Endpoint.claim(Paths.in_folder(home).socket, role), role=role)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def client(home: Path) -> Iterator[RemoteEngine]:
    """A client that is attached to what listens for `home`."""
    engine = attach(Paths.in_folder(home))
    assert engine is not None, "nobody listens"
    try:
        yield engine
    finally:
        engine.close()
