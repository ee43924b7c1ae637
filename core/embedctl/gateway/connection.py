"""A client's connection, with the limits that uvicorn leaves to a proxy in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from embedctl.gateway.transport import OneSend

HEAD_S: Final = 20.0
"""Time for the head of a request, once the connection or the request has begun."""
HEAD_BYTES: Final = 64 * 1024
"""Of one request's head together with what follows its body (the trailers)."""
_REFUSED_AT_ONCE: Final = 64
"""Connections beyond the limit that may wait to be told so; any more are closed without a word."""
_IN_SCOPE: Final = "embedctl.connection"


def on_lost(scope: Scope, do: Callable[[], None] | None) -> None:
    """Have `do` called, on the event loop, when a request's client goes away; None: no longer.

    Cheaper than a task that waits for ASGI's `http.disconnect`, which every request would pay for. Under
    another server than ours nothing is called.
    """
    connection = scope.get(_IN_SCOPE)
    if connection is not None:
        connection.on_lost = do


class Connection(HttpToolsProtocol):
    """Closes when a head is not complete in `HEAD_S`, or when nobody reads an answer.

    What exceeds `HEAD_BYTES` gets 400, as all bad HTTP does.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._late: asyncio.TimerHandle | None = None
        self._in_head = False
        self._unfinished = 0
        self._parsed = 0
        self._unread = 0
        self.on_lost: Callable[[], None] | None = None
        """Called once when the connection is lost, for the request that is being answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, OneSend(transport, self.loop)))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if self.transport.is_closing():
            return
        if was_in_head and self._in_head:  # the parser keeps a name or a value until it is whole
            self._unfinished += len(data)
            if self._unfinished > HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")
                return
        idle = self.cycle is None or self.cycle.response_complete
        if self._late is None and (self._in_head or idle) and self.timeout_keep_alive_task is None:
            self._wait_for_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast(dict[str, object], self.scope)[_IN_SCOPE] = self
        self._in_head = True
        self._unfinished = self._parsed = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._parsed += len(name) + len(value)
        if self._parsed > HEAD_BYTES:
            raise ValueError("headers or trailers without an end")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Idle for long. A transport with bytes that the client does not take would never close by itself."""
        unread, before = self.transport.get_write_buffer_size(), self._unread
        self._unread = unread
        if not unread:
            super().timeout_keep_alive_handler()
        elif unread == before:
            self.transport.abort()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _wait_for_head(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # the next request began before this one's answer
            self._wait_for_head()


def limited(most: int, full: ASGIApp) -> type[Connection]:
    """Connections of which `most` may be open at once; what those beyond ask is answered by `full`."""

    class Limited(Connection):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            beyond = len(self.connections) - most
            if beyond > _REFUSED_AT_ONCE:
                transport.abort()
            elif beyond > 0:
                self.app = full

    return Limited
