"""What the two ends say to each other, as frames.

Client to server: `hello` (first), `call`, `cancel` (takes a call back), `subscribe`.
Server to client: `hello`, then per call `result`, `job` or `error` with the call's id, and unasked `message`
and, where there is none, `alive`.
What jobs tell goes to every client, all else to those that subscribed. The end of the stream is a goodbye.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, get_type_hints

import embedctl
from embedctl.control.codec import decode, encode
from embedctl.engine.facade import EngineFacade, JobHandle
from embedctl.errors import EmbedctlError, ServiceError
from embedctl.worker.frames import Frame
from embedctl.worker.protocol import error_fields

HANDSHAKE_S: Final = 5.0
"""How long one end waits for the other's first word."""

ALIVE_EVERY_S: Final = 5.0
"""The longest that a server is silent."""
SILENCE_S: Final = 30.0
"""A server that is silent for so long was stopped or hangs."""

_AT_HOME: Final = frozenset({"subscribe", "paths", "close"})
"""What a client answers itself: it has subscribers, folders and an end of its own."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a server says of itself."""

    version: str
    pid: int
    role: str
    """`service` or `console`."""
    instance: str
    """Another one after each start: jobs of an earlier instance are gone."""
    jobs: int = 0
    """The highest number of a job so far. Of one up to it that does not run now, a client needs no news."""

    @property
    def title(self) -> str:
        return f"the {self.role} (PID {self.pid})"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the façade, as it may be made from outside."""

    name: str
    is_property: bool
    makes_job: bool
    cancellable: bool
    """It takes a `CancelToken` under the name `cancel`, which stands for the frame `cancel`."""


@cache
def calls() -> Mapping[str, Call]:
    """Every call of `EngineFacade` that crosses; read off the Protocol, so that a new one is in it."""
    found = {}
    for name, member in vars(EngineFacade).items():
        if name.startswith("_") or name in _AT_HOME:
            continue
        if isinstance(member, property):
            found[name] = Call(name, True, False, False)
        elif inspect.isfunction(member):
            makes_job = get_type_hints(member)["return"] is JobHandle
            found[name] = Call(name, False, makes_job, "cancel" in inspect.signature(member).parameters)
    return found


def with_value(kind: str, frame_id: int, value: object, **header: Any) -> Frame:
    """A frame that carries a value.

    Raises:
        TypeError: The value holds something that cannot cross.
    """
    length, payload = encode(value)
    return Frame({"kind": kind, "id": frame_id, "document": length, **header}, payload)


def value_of(frame: Frame) -> Any:
    """The inverse of `with_value`.

    Raises:
        FrameError: The frame holds no value.
    """
    return decode(frame.payload, int(frame.header.get("document", 0)))


def error_frame(frame_id: int, call: str, error: BaseException) -> Frame:
    if not isinstance(error, EmbedctlError):
        error = ServiceError(
            f"The service failed on {call!r}",
            why=f"{type(error).__name__}: {error}".strip().split("\n")[0],
            remedy="the service's log has the details; please report it as a bug",
        )
    return Frame({"kind": "error", "id": frame_id, **error_fields(error)})


def check_version(theirs: str, title: str) -> None:
    """Raise `ServiceError` unless the other end is of our version: records differ from one to the next."""
    if theirs != embedctl.__version__:
        raise ServiceError(
            f"This embedctl ({embedctl.__version__}) cannot talk to {title} ({theirs})",
            why="the two are of different versions",
            remedy="end that one and start it again (a service: `embedctl service stop`, then `start`), "
            "or use --no-attach",
        )
