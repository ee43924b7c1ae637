"""The HTTP server under the demo's servers: on loopback, and its end cuts the connections that are open."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """Remembers its connections: clients keep them open, and would be served on after the end."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # the standard library's 5 resets connections when 200 clients come at once

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen; `port` 0 is any free one."""
        super().__init__(("127.0.0.1", port), handler)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, as a cancelled download does, is no fault of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """Cut the connections that are open, as the end of a process would."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
