"""The socket in the file system: who may listen on it, and how to reach who does.

A lock file beside the socket says whether anybody listens; the system gives the lock back however its holder
ends, so that a socket without a holder is stale and may be replaced. Nobody but its user may reach either.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from embedctl.errors import ServiceError

_ROOT: Final = 0


class Endpoint:
    """The right to listen on one socket; one process at a time has it."""

    def __init__(self, path: Path, lock: int) -> None:
        """Use `claim`."""
        self.path = path
        self._lock = lock
        self._listening = False

    @classmethod
    def claim(cls, path: Path, role: str) -> Endpoint:
        """Take the right to listen, and remove what an earlier holder may have left.

        Args:
            role: What listens, for the message that others get.

        Raises:
            ServiceError: Another process has it, or the folder cannot be used.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(path.parent)
            path.parent.chmod(0o700)
            lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServiceError(
                f"{path.parent} cannot be used for the control socket",
                why=error.strerror or str(error),
                remedy="check the folder's rights, or set EMBEDCTL_HOME",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 100, 0).decode(errors="replace") or "another embedctl"
            os.close(lock)
            raise ServiceError(
                f"{path} is in use",
                why=f"{holder} listens there",
                remedy="end that one first (`embedctl service stop`, or leave the console)",
            ) from error
        os.truncate(lock, 0)
        os.pwrite(lock, f"a {role} (PID {os.getpid()})".encode(), 0)
        path.unlink(missing_ok=True)
        return cls(path, lock)

    def listen(self) -> socket.socket:
        """The listening socket, of mode 0600.

        Raises:
            ServiceError: It cannot be made there.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(self.path))
            self.path.chmod(0o600)
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise ServiceError(
                f"Nothing can listen on {self.path}",
                why=error.strerror or str(error),
                remedy="check that its file system knows sockets, or set EMBEDCTL_HOME",
            ) from error
        self._listening = True
        return listener

    def release(self) -> None:
        """Remove the socket and give the right back. Safe to call twice."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        if self._listening:
            with suppress(OSError):
                self.path.unlink()
        os.close(lock)


def connect(path: Path, *, timeout: float) -> socket.socket | None:
    """A connection to who listens on `path`; None if nobody does.

    Raises:
        ServiceError: Somebody does but cannot be reached, or the socket is another user's.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        _check_owner(path)
        connection.connect(os.fspath(path))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        raise ServiceError(
            f"{path} does not answer",
            why=error.strerror or str(error) or type(error).__name__,
            remedy="end the embedctl that listens there, or use --no-attach",
        ) from error
    except ServiceError:
        connection.close()
        raise
    return connection


def _check_owner(path: Path) -> None:
    """Refuse what another user has put there, a link to something of ours too: texts would go to them."""
    for owner in (path.lstat().st_uid, path.stat().st_uid):
        if owner not in (os.getuid(), _ROOT):
            raise ServiceError(
                f"{path} belongs to another user (UID {owner})",
                remedy="have it removed, or set EMBEDCTL_HOME or XDG_RUNTIME_DIR to a folder of your own",
            )
