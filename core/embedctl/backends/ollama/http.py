"""One pool of connections to an Ollama server whose requests have deadlines and can be cut short.

The `ollama` client sets one timeout for all its requests and has no way to end one that waits. Both are
added below it, in the httpx transport: each request's timeouts come from the deadline that its thread has
declared, and `abort` shuts the sockets down, which wakes a thread that waits for an answer (closing them
would not).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from ollama import Client, ResponseError

CONNECT_SECONDS = 5.0


class Aborted(httpx.TransportError):
    """The pool was aborted; nothing can be sent through it any more."""


class Connection:
    """A server's client. Thread-safe.

    Proxies named in the environment are not used: they commonly break requests to this machine.

    Args:
        url: The server's base URL.
        default_seconds: Time allowed to a request outside of `within`.
    """

    def __init__(self, url: str, *, default_seconds: float) -> None:
        self._transport = _Transport(url, default_seconds)
        self.client = Client(host=url, transport=self._transport)
        key = os.environ.get("OLLAMA_API_KEY")  # the client adds it to its own requests
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._plain = httpx.Client(base_url=url, transport=self._transport, headers=headers)

    def get_json(self, path: str) -> dict[str, Any]:
        """The object at a path that the client has no method for, such as `/api/version`."""
        answer = self._plain.get(path)
        if answer.status_code != 200:
            raise ResponseError(answer.text, answer.status_code)
        found = answer.json()
        if not isinstance(found, dict):
            raise TypeError(f"{path} answered no object")
        return found

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[Client]:
        """Requests of this thread inside the block fail once `seconds` have passed since its start.

        A stream's deadline counts from its last piece: each read may take `seconds`.
        """
        self._transport.local.deadline = time.monotonic() + seconds
        try:
            yield self.client
        finally:
            del self._transport.local.deadline

    @property
    def aborted(self) -> bool:
        return self._transport.aborted

    def abort(self) -> None:
        """End every request under way, from any thread; their callers get an error. Final."""
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()


class _Transport(httpx.HTTPTransport):
    def __init__(self, url: str, default_seconds: float) -> None:
        # A plain-http server needs no certificates, and reading them costs 20 ms. The empty context still
        # verifies, so a redirect to https fails instead of going unchecked.
        plain = url.startswith("http://")
        super().__init__(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True)
        self.local = threading.local()
        self.aborted = False
        self._default_seconds = default_seconds
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.aborted:
            raise Aborted("the connection was closed", request=request)
        deadline = getattr(self.local, "deadline", None)
        seconds = self._default_seconds if deadline is None else deadline - time.monotonic()
        if seconds <= 0:
            raise httpx.ReadTimeout("no time left", request=request)
        request.extensions = {
            **request.extensions,
            "timeout": httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)).as_dict(),
            "trace": self._note_socket,
        }
        return super().handle_request(request)

    def abort(self) -> None:
        with self._lock:
            self.aborted = True
            sockets = list(self._sockets)
        for each in sockets:
            _shut(each)

    def _note_socket(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore's trace hook: remember the socket of each new connection."""
        if not event.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        opened = info["return_value"].get_extra_info("socket")
        with self._lock:
            self._sockets.add(opened)
            aborted = self.aborted
        if aborted:
            _shut(opened)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed by its owner in the meantime
        opened.shutdown(socket.SHUT_RDWR)
