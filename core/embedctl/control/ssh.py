"""The control socket of another machine, brought here by ssh."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from embedctl.control.endpoint import connect
from embedctl.control.protocol import HANDSHAKE_S
from embedctl.errors import ServiceError

_UP_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.05
_NO_QUESTIONS: Final = ("-o", "BatchMode=yes")
_KEEP_UP: Final = (
    *("-o", "ExitOnForwardFailure=yes"),
    *("-o", "StreamLocalBindUnlink=yes"),
    *("-o", "StreamLocalBindMask=0177"),
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "LogLevel=INFO"),  # its log goes to a file, and tells why a connection was refused
)
_NOT_FOUND: Final = 127
"""What a shell ends with when it knows no such command."""
_SSH_FAILED: Final = 255


class SshTunnel:
    """Forwards the control socket of a host to one in a private folder here, and anew when it breaks.

    The first connection may ask for a password or a host's key on the terminal; later ones, made while the
    console has the screen, ask nothing.

    Args:
        host: As ssh takes it: a name of its configuration, or user@host.
        command: How embedctl is called over there.
        demo: The demo's socket.
    """

    def __init__(self, host: str, *, command: str = "embedctl", demo: bool = False) -> None:
        if host.startswith("-"):
            raise ServiceError(f"{host!r} is no host", remedy="give it as user@host")
        self._host = host
        self._command = command
        self._demo = demo
        self._folder = tempfile.TemporaryDirectory(prefix="embedctl-ssh-")
        self._local = Path(self._folder.name) / "control.sock"
        self._log = Path(self._folder.name) / "ssh.log"
        self._remote = ""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._first: socket.socket | None = None
        """The connection that showed that the tunnel is up."""

    @property
    def host(self) -> str:
        return self._host

    def open(self) -> None:
        """Ask for the socket's path over there and forward it.

        Raises:
            ServiceError: ssh is not here or fails, embedctl is not there, or no service runs there.
        """
        self._remote = self._ask()
        self._first = self._forward(())

    def dial(self) -> socket.socket:
        """A connection through the tunnel, which is made anew if it has broken.

        Raises:
            ServiceError: As `open`.
        """
        first, self._first = self._first, None
        if first is not None:
            return first
        if self._process is not None and self._process.poll() is None:
            connection = connect(self._local, timeout=HANDSHAKE_S)
            if connection is not None:
                return connection
        return self._forward(_NO_QUESTIONS)

    def explain(self, error: ServiceError) -> ServiceError:
        """Why nobody answers through the tunnel, where ssh knows better than `error`.

        A server that forbids it lets the tunnel come up, and hangs up on each connection. It says no more
        than "open failed", also where nobody listens; but `open` has just found somebody.
        """
        said = _last_line(self._log)
        return self._not_forwarded(said) if "open failed" in said else error

    def close(self) -> None:
        """End the tunnel for good, also one that another thread is making. Safe to call twice."""
        with self._lock:
            self._closed = True
        if self._first is not None:
            self._first.close()
        self._end()
        self._folder.cleanup()

    def _ask(self) -> str:
        words = [self._command, *(["--demo"] if self._demo else []), "service", "socket"]
        ended = subprocess.run(
            [_ssh(), self._host, "--", *words], stdout=subprocess.PIPE, stderr=None, text=True, check=False
        )
        lines = ended.stdout.strip().splitlines()
        if ended.returncode == 0 and lines:
            return lines[-1]  # a login script may have greeted before
        if ended.returncode == 1:
            raise ServiceError(
                f"No embedctl service runs on {self._host}",
                why="nobody listens on its control socket",
                remedy=f"start it there: ssh {self._host} {' '.join([*words[:-1], 'start'])}",
            )
        if ended.returncode == _NOT_FOUND:
            raise ServiceError(
                f"There is no {self._command} on {self._host}",
                why="a shell without a login may have a shorter PATH",
                remedy="name it in full, as in --there /opt/embedctl/bin/embedctl",
            )
        raise ServiceError(
            f"{self._host} could not be asked for its service",
            why="ssh could not connect; what it said stands above"
            if ended.returncode == _SSH_FAILED
            else f"{' '.join(words)} ended there with exit code {ended.returncode}",
            remedy=f"try it by hand: ssh {self._host} {' '.join(words)}",
        )

    def _forward(self, options: tuple[str, ...]) -> socket.socket:
        self._end()
        try:
            process = self._start(options)
        except OSError as error:
            raise ServiceError(f"ssh to {self._host} cannot be started", why=str(error)) from error
        deadline = time.monotonic() + _UP_S
        while (connection := connect(self._local, timeout=HANDSHAKE_S)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                self._end()
                raise self._not_forwarded(_last_line(self._log) or f"ssh made no tunnel within {_UP_S:g} s")
            time.sleep(_LOOK_EVERY_S)
        return connection

    def _not_forwarded(self, why: str) -> ServiceError:
        return ServiceError(
            f"The control socket of {self._host} could not be forwarded",
            why=why,
            remedy="check with `ssh -v`; the server may forbid it (AllowStreamLocalForwarding)",
        )

    def _start(self, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
        with self._lock:  # what starts while the tunnel is closed would outlive this process
            if self._closed:
                raise ServiceError(f"The tunnel to {self._host} was closed")
            self._local.unlink(missing_ok=True)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [_ssh(), "-N", *_KEEP_UP, *options, "-L", f"{self._local}:{self._remote}", self._host],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                )
            return self._process

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _last_line(log_file: Path) -> str:
    with suppress(OSError):  # it goes with the tunnel
        for line in reversed(log_file.read_text(errors="replace").splitlines()):
            if line.strip():
                return line.strip()
    return ""


def _ssh() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise ServiceError(
            "ssh was not found", why="it is not on the PATH", remedy="install OpenSSH's client"
        )
    return found
