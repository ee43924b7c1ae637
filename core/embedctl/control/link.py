"""One connection to a running service, from the client's side."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import fields
from typing import Any

import embedctl
from embedctl.control.protocol import HANDSHAKE_S, SILENCE_S, Hello, check_version, value_of, with_value
from embedctl.errors import ConnectionLostError, ServiceError
from embedctl.events import Message
from embedctl.progress import CancelToken
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame, FrameError
from embedctl.worker.protocol import error_from

log = logging.getLogger(__name__)


class Link:
    """Calls go out from any thread; answers and messages come in on a thread of its own.

    Args:
        connection: A connected socket; owned from now on.
        on_message: Called with every message, on the link's thread.
        on_lost: Called once when the connection has ended by itself, on the link's thread.
        instance: The instance that an earlier link was connected to: its jobs' last words are told again.

    Raises:
        ServiceError: The other end does not answer, or is of another version.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_message: Callable[[Link, Message], None],
        on_lost: Callable[[Link], None],
        instance: str = "",
    ) -> None:
        self._channel = Channel(connection, send_timeout=SILENCE_S, receive_timeout=SILENCE_S)
        self._on_message = on_message
        self._on_lost = on_lost
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Frame]] = {}
        self._ended = False
        self._closed = False
        self.ended_by = "it ended, or the way to it broke"
        """Why there will be no more answers, once that is so."""
        connection.settimeout(HANDSHAKE_S)
        try:
            self.hello = self._greet(instance)
            check_version(self.hello.version, self.hello.title)
        except BaseException:
            self._channel.close()
            raise
        connection.settimeout(None)
        threading.Thread(target=self._read, name="control-link", daemon=True).start()

    def _greet(self, instance: str) -> Hello:
        hello = {"kind": "hello", "version": embedctl.__version__, "instance": instance}
        try:
            self._channel.send(Frame(hello))
            frame = self._channel.receive()
            if frame is None:
                raise ConnectionResetError
            if frame.kind != "hello":
                raise FrameError("it speaks another language")
            said = frame.header
            return Hello(**{field.name: said[field.name] for field in fields(Hello) if field.name in said})
        except ConnectionError as error:  # at the end of an ssh tunnel too, there is always somebody
            raise ServiceError(
                "The running embedctl hung up",
                why="it closed the connection before it had said a word: it is ending or has ended",
                remedy="start it with `embedctl service start`, over there where it is another machine's",
            ) from error
        except (OSError, FrameError, TypeError) as error:
            raise ServiceError(
                "The running embedctl does not answer",
                why=str(error) or type(error).__name__,
                remedy="end it and start it again, or use --no-attach",
            ) from error

    def call(
        self,
        name: str,
        arguments: Sequence[object],
        keywords: dict[str, object],
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Any:
        """Call the façade over there.

        Returns:
            The result; a `JobUpdate` where the call starts a job.

        Raises:
            EmbedctlError: What the call raised there.
            ConnectionLostError: The connection broke, or there was no answer within `timeout` seconds.
        """
        number = next(self._ids)
        future: Future[Frame] = Future()
        with self._lock:
            if self._ended:
                raise self._lost(name)
            self._pending[number] = future
        heed_no_more: Callable[[], None] | None = None
        try:
            self._send(with_value("call", number, (tuple(arguments), keywords), name=name))
            if cancel is not None:
                heed_no_more = cancel.on_cancel(lambda: self.send("cancel", number))
            frame = future.result(timeout)
        except TimeoutError as error:
            raise self._lost(name, f"no answer came within {timeout:g} s") from error
        except OSError as error:
            raise self._lost(name) from error
        finally:
            if heed_no_more is not None:
                heed_no_more()
            with self._lock:
                self._pending.pop(number, None)
        if frame.kind == "error":
            raise error_from(frame.header)
        try:
            return value_of(frame)
        except FrameError as error:
            raise ServiceError(
                f"The answer of {self.hello.title} to {name!r} cannot be read",
                why=str(error),
                remedy="end it and start it again, or use --no-attach",
            ) from error

    def send(self, kind: str, number: int = 0) -> None:
        """Send a frame without an answer; nothing happens when the connection is lost."""
        try:
            self._send(Frame({"kind": kind, "id": number}))
        except OSError as error:
            log.debug("%s was not sent: %s", kind, error)

    def _send(self, frame: Frame) -> None:
        try:
            self._channel.send(frame)
        except BlockingIOError:  # half of it may be out
            self._fall_silent()
            self._channel.close()
            raise

    def _fall_silent(self) -> None:
        self.ended_by = f"nothing was heard of it for {SILENCE_S:g} s: it was stopped (SIGSTOP) or hangs"

    @property
    def ended(self) -> bool:
        return self._ended

    def close(self) -> None:
        """Say goodbye; calls that wait raise. Safe to call twice."""
        self._closed = True
        self._end()
        self._channel.close()

    def _read(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None:
                self._take(frame)
        except BlockingIOError:
            self._fall_silent()
        except (OSError, FrameError) as error:
            log.debug("the connection broke: %s", error)
        self._end()
        self._channel.close()
        if not self._closed:
            self._on_lost(self)

    def _take(self, frame: Frame) -> None:
        if frame.kind == "message":
            if skipped := int(frame.header.get("skipped", 0)):
                log.info("%d messages were superseded before they could be sent", skipped)
            self._on_message(self, value_of(frame))
            return
        with self._lock:
            future = self._pending.get(frame.id)
        if future is not None:  # else nobody waits any more
            future.set_result(frame)

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the connection ended"))

    def _lost(self, name: str, why: str = "") -> ConnectionLostError:
        return ConnectionLostError(
            f"The connection to {self.hello.title} was lost",
            why=f"{why or self.ended_by}; {name!r} may or may not have been carried out",
            remedy="try again: the connection is made anew by itself once it is back",
        )
