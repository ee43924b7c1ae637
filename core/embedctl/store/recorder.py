"""Who may record: samples come from one process at a time, or a second console would count each second twice.

All else (events, runs, state) may be written by any process; SQLite makes those short transactions wait for
each other.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class RecorderLock:
    """An advisory lock on a file beside the history, given back by the system however its holder ends.

    Not on the history itself: SQLite's own locks there must not be disturbed.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.recorder")
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def claim(self) -> bool:
        """Take the lock unless another holds it; true if it is ours now.

        Raises:
            OSError: The lock file cannot be made, or the file system knows no locks.
        """
        if self._descriptor is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def holder(self) -> int | None:
        """PID of the process that holds the lock; None if nobody does, it is ours, or nobody can say."""
        if self.held:
            return None
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # there is none, or it may not be read
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0)
            return int(text) if text.isdigit() else None
        except OSError:  # a file system that knows no locks
            return None
        finally:
            os.close(descriptor)  # gives the shared lock back
        return None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
