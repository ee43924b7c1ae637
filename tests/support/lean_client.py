"""A client in a process of its own that does next to nothing: what it waits for is the server's time.

    python -m tests.support.lean_client URL PATH BODY

Every line on stdin sends the prepared request once; the line on stdout is the time until the last byte of
the answer, in milliseconds. A status other than 200 ends it with the answer on stderr.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Self


class LeanClient:
    """Runs the client as a child process; use it in a `with` block."""

    def __init__(self, url: str, path: str, body: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, url, path, body],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __call__(self) -> float:
        """Send the request once and wait for its answer; returns milliseconds as the client saw them."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        return float(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    answer = bytearray(connection.recv(1 << 20))
    while (end := answer.find(b"\r\n\r\n")) < 0:
        answer += connection.recv(1 << 20)
    head = bytes(answer[:end]).lower()
    start = head.index(b"content-length:") + 15
    length = int(head[start:].split(b"\r\n", 1)[0])
    while len(answer) < end + 4 + length:
        answer += connection.recv(1 << 20)
    return bytes(answer)


def main(url: str, path: str, body: str) -> int:
    host, _, port = url.removeprefix("http://").partition(":")
    data = body.encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    ).encode() + data
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in sys.stdin:
            started = time.perf_counter()
            answer = _exchange(connection, request)
            seconds = time.perf_counter() - started
            if not answer.startswith(b"HTTP/1.1 200"):
                sys.stderr.write(answer.decode("latin-1"))
                return 1
            print(f"{seconds * 1e3:.6f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
