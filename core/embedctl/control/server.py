"""Offers an engine to the other processes of its user.

Per client one thread reads, one tells what the engine publishes, and each call has a thread of its own: a
slow call keeps no other waiting, and a client that does not read keeps nobody waiting but itself.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import embedctl
from embedctl.control.endpoint import Endpoint
from embedctl.control.mailbox import Mailbox
from embedctl.control.protocol import (
    ALIVE_EVERY_S,
    HANDSHAKE_S,
    Hello,
    calls,
    error_frame,
    value_of,
    with_value,
)
from embedctl.engine.facade import EngineFacade
from embedctl.errors import EmbedctlError, UsageError
from embedctl.events import JobChanged, Message
from embedctl.progress import CancelToken
from embedctl.records import JobState
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame, FrameError

log = logging.getLogger(__name__)

_AT_ONCE: Final = 256
"""Calls of one client that run at once; the next is read when one has ended."""
_ACCEPT_AGAIN_S: Final = 0.2
"""After a connection that could not be taken: what is missing, such as file descriptors, may be back then."""
_LAST_WORDS_S: Final = 1.0
"""How long all clients together have for taking the last messages."""
_JOBS_KEPT: Final = 100


class ControlServer:
    """Listens on an `Endpoint` until it is stopped. The engine is the caller's, before and after."""

    def __init__(self, engine: EngineFacade, endpoint: Endpoint, *, role: str) -> None:
        """
        Args:
            role: What runs the engine, such as `service` or `console`.
        """
        self._engine = engine
        self._endpoint = endpoint
        self._hello = Hello(embedctl.__version__, os.getpid(), role, instance=uuid.uuid4().hex)
        self._lock = threading.Lock()
        self._sessions: set[_Session] = set()
        self._last_words: dict[int, JobChanged] = {}
        """Of each job the latest, for clients that lost the connection meanwhile."""
        self._unsubscribe: Callable[[], None] = lambda: None
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()

    @property
    def path(self) -> Path:
        return self._endpoint.path

    def start(self) -> None:
        """Listen, on a thread of its own.

        Raises:
            ServiceError: The socket cannot be made.
        """
        self._listener = self._endpoint.listen()
        self._unsubscribe = self._engine.subscribe(self._published)
        threading.Thread(target=self._accept, args=(self._listener,), name="control", daemon=True).start()

    def stop(self) -> None:
        """Tell what is still to be told, then close all connections and the socket.

        Safe to call twice, and before `start`.
        """
        self._stopping.set()
        self._unsubscribe()
        if self._listener is not None:
            with suppress(OSError):  # wakes the thread that accepts
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.finish()
        deadline = time.monotonic() + _LAST_WORDS_S
        for session in sessions:
            session.wait_told(max(0.0, deadline - time.monotonic()))
            session.close()
        self._endpoint.release()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._stopping.wait(_ACCEPT_AGAIN_S):
                    return
                log.warning("a client could not be let in: %s", error)  # such as too many open files
                continue
            session = _Session(self._engine, connection)
            threading.Thread(target=self._serve, args=(session,), name="control-client", daemon=True).start()

    def _serve(self, session: _Session) -> None:
        try:
            with self._lock:
                hello = replace(self._hello, jobs=max(self._last_words, default=0))
            if session.greet(hello):
                with self._lock:  # from here on it is told what is published, and of each job the latest word
                    if self._stopping.is_set():
                        return
                    self._sessions.add(session)
                    session.remind(self._last_words.values())
                session.run()
        except (OSError, FrameError) as error:
            log.debug("a client went away: %s", error)
        finally:
            with self._lock:
                self._sessions.discard(session)
            session.close()

    def _published(self, message: Message) -> None:
        with self._lock:
            if isinstance(message, JobChanged):
                self._last_words[message.update.job_id] = message
                if len(self._last_words) > _JOBS_KEPT:
                    self._forget_one()
            sessions = tuple(self._sessions)
        for session in sessions:
            session.tell(message)

    def _forget_one(self) -> None:
        """Of the jobs that have ended the oldest."""
        for number, word in self._last_words.items():
            if word.update.state is not JobState.RUNNING:
                del self._last_words[number]
                return


class _Session:
    """One client."""

    def __init__(self, engine: EngineFacade, connection: socket.socket) -> None:
        self._engine = engine
        self._connection = connection
        self._channel = Channel(connection)
        self._mailbox = Mailbox()
        self._teller = threading.Thread(target=self._tell, name="control-news", daemon=True)
        self._subscribed = False
        self._returns = False
        self._running = threading.BoundedSemaphore(_AT_ONCE)
        self._lock = threading.Lock()
        self._cancels: dict[int, CancelToken] = {}

    def greet(self, hello: Hello) -> bool:
        """Exchange the first words; false: there is nothing to talk about.

        Raises:
            FrameError: What it said is no frame.
            OSError: It said nothing, or the connection broke.
        """
        self._connection.settimeout(HANDSHAKE_S)
        frame = self._channel.receive()
        if frame is None or frame.kind != "hello":
            return False
        self._channel.send(Frame({"kind": "hello", **asdict(hello)}))
        self._connection.settimeout(None)
        self._returns = frame.header.get("instance") == hello.instance
        return frame.header.get("version") == hello.version  # else it tells its user by what it read

    def remind(self, messages: Iterable[Message]) -> None:
        """Have a client that lost the connection told what it may have missed."""
        for message in messages if self._returns else ():
            self._mailbox.put(message)

    def run(self) -> None:
        """Serve the client until it goes.

        Raises:
            FrameError: What it said is no frame.
            OSError: The connection broke.
        """
        self._teller.start()
        while (frame := self._channel.receive()) is not None:
            self._take(frame)

    def finish(self) -> None:
        """Take in no more messages for it."""
        self._mailbox.finish()

    def wait_told(self, timeout: float) -> None:
        """Wait until the client has taken all messages."""
        if self._teller.is_alive():
            self._teller.join(timeout)

    def close(self) -> None:
        """End the connection and take back what the client waits for; its jobs go on."""
        self._mailbox.close()
        self._channel.close()
        with self._lock:
            tokens = list(self._cancels.values())
        for token in tokens:
            token.cancel()

    def tell(self, message: Message) -> None:
        """Have a message sent, if the client wants it. Returns at once."""
        if self._subscribed or isinstance(message, JobChanged):
            self._mailbox.put(message)

    def _take(self, frame: Frame) -> None:
        if frame.kind == "call":
            self._running.acquire()
            token = CancelToken()
            with self._lock:
                self._cancels[frame.id] = token
            threading.Thread(
                target=self._answer, args=(frame, token), name="control-call", daemon=True
            ).start()
        elif frame.kind == "cancel":
            with self._lock:
                cancel = self._cancels.get(frame.id)
            if cancel is not None:
                cancel.cancel()
        elif frame.kind == "subscribe":
            self._subscribed = True

    def _answer(self, frame: Frame, token: CancelToken) -> None:
        name = str(frame.header.get("name"))
        try:
            reply = self._reply(frame, name, token)
        except Exception as error:
            if not isinstance(error, EmbedctlError):
                log.exception("the call %s failed unexpectedly", name)
            reply = error_frame(frame.id, name, error)
        finally:
            with self._lock:
                self._cancels.pop(frame.id, None)
            self._running.release()
        try:
            self._channel.send(reply)
        except FrameError as error:
            with suppress(OSError):
                self._channel.send(error_frame(frame.id, name, error))
        except OSError:  # it has gone, and `run` sees that too
            log.debug("nobody waits for %s any more", name)

    def _reply(self, frame: Frame, name: str, token: CancelToken) -> Frame:
        call = calls().get(name)
        if call is None:
            raise UsageError(f"There is no call {name!r}", why="it is none of the engine's façade")
        arguments, keywords = value_of(frame)
        if name == "export_csv":
            return with_value("result", frame.id, _exported(self._engine, *arguments, **keywords))
        if call.cancellable:
            keywords = {**keywords, "cancel": token}
        member = getattr(self._engine, name)
        answer = member if call.is_property else member(*arguments, **keywords)
        if not call.makes_job:
            return with_value("result", frame.id, answer)
        return with_value("job", frame.id, answer.update)

    def _tell(self) -> None:
        with suppress(OSError):
            while True:
                try:
                    taken = self._mailbox.take(ALIVE_EVERY_S)
                except TimeoutError:
                    self._channel.send_if_free(Frame({"kind": "alive", "id": 0}))
                    continue
                if taken is None:
                    return
                message, skipped = taken
                try:
                    self._channel.send(with_value("message", 0, message, skipped=skipped))
                except (TypeError, FrameError):
                    log.exception("a %s could not be told to a client", type(message).__name__)


def _exported(engine: EngineFacade, since: float, until: float, **options: Any) -> tuple[int, bytes]:
    """The table as a file's content: what the client may write, and where, is not ours to know."""
    with tempfile.TemporaryDirectory(prefix="embedctl-") as folder:
        target = Path(folder) / "history.csv"
        rows = engine.export_csv(target, since, until, **options)
        return rows, target.read_bytes()
