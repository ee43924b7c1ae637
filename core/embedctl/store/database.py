"""The history file: opened with care, written by one thread at a time, read by any number at once.

Every write is one `BEGIN IMMEDIATE` transaction on the one writing connection, committed with
synchronous=FULL. Every read is one transaction on a connection of its own, lent from a pool, so that a
reader sees one moment of the file and, in WAL mode, neither waits for the writer nor holds it up.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from sqlite_utils import Database

from embedctl.store import faults
from embedctl.store.migrations import LATEST, migrate

APPLICATION_ID: Final = 0x454D4244
"""`EMBD` in ASCII, in the file's header (`PRAGMA application_id`): tells our files from other programs'."""

BUSY_TIMEOUT_S: Final = 5.0
"""How long a write waits for another process's transaction; ours last milliseconds."""


class HistoryFile:
    """Connections to one history file. Safe to use from any thread."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float], busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        """Open the file, making or upgrading it as needed.

        Raises:
            StoreNewerError, StoreForeignError, StoreCorruptError: The file is not for us; it is untouched.
            StoreReadOnlyError, StoreFullError, StoreBusyError: It cannot be written (yet).
        """
        self.path = path
        self._busy_timeout_s = busy_timeout_s
        self._write_lock = threading.RLock()
        self._pool_lock = threading.Lock()
        self._idle_readers: list[Database] = []
        self._closed = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # checks keep texts of the user's
        except OSError as error:
            raise faults.read_only(path, f"its folder cannot be made: {error.strerror}") from error
        with self._translated():
            if path.exists():
                self._inspect()
            self._writer = self._connect("rwc")
            try:
                self._prepare()
                migrate(self._writer, application_id=APPLICATION_ID, clock=clock)
            except BaseException:
                self._writer.close()
                raise

    @contextmanager
    def write(self) -> Iterator[Database]:
        """One transaction: committed at the end of the block, undone if the block raises."""
        with self._write_lock, self._translated():
            if self._closed:
                raise faults.closed(self.path)
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the first error is the one to tell
                    self._writer.rollback()
                raise

    @contextmanager
    def read(self) -> Iterator[Database]:
        """One moment of the file, for the length of the block."""
        with self._translated():
            reader = self._borrow()
            try:
                reader.execute("BEGIN")
                yield reader
                reader.execute("COMMIT")
            except BaseException:
                reader.close()
                raise
            self._give_back(reader)

    def close(self) -> None:
        """Close every connection; the last process to do so folds the write-ahead log into the file."""
        with self._write_lock, self._pool_lock:
            self._closed = True
            for reader in self._idle_readers:
                reader.close()
            self._idle_readers.clear()
            self._writer.close()

    def _borrow(self) -> Database:
        with self._pool_lock:
            if self._closed:
                raise faults.closed(self.path)
            if self._idle_readers:
                return self._idle_readers.pop()
        return self._connect("ro")

    def _give_back(self, reader: Database) -> None:
        with self._pool_lock:
            if not self._closed:
                self._idle_readers.append(reader)
                return
        reader.close()

    def _connect(self, mode: Literal["ro", "rwc"]) -> Database:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,  # transactions are begun and ended here, never by the driver
            check_same_thread=False,  # one thread at a time is kept by the lock and by the pool
        )
        return Database(connection, execute_plugins=False)

    def _inspect(self) -> None:
        """Look at an existing file without being able to change it, and raise if it is not for us.

        Through SQLite and not through `open()`: closing a file descriptor of our own would drop the locks
        that this process's other connections hold (sqlite.org/howtocorrupt.html, 2.2).
        """
        looker = self._connect("ro")
        try:
            application: int = looker.execute("PRAGMA application_id").fetchone()[0]
            version: int = looker.execute("PRAGMA user_version").fetchone()[0]
            tables = looker.table_names()
            if application != APPLICATION_ID:
                if application or version or tables:
                    raise faults.foreign(self.path)
                return
            if version > LATEST:
                raise faults.newer(self.path, version, LATEST)
            for table in tables:  # both ends of each tree: a file that was cut short shows here
                for end in ("min", "max"):
                    looker.execute(f"SELECT {end}(rowid) FROM [{table}]").fetchone()  # noqa: S608
        finally:
            looker.close()

    def _prepare(self) -> None:
        deadline = time.monotonic() + self._busy_timeout_s
        while not self._switch_to_wal():
            if time.monotonic() > deadline:
                raise faults.held(self.path, "it is being made by another process")
            time.sleep(0.01)
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.execute("PRAGMA foreign_keys=ON")

    def _switch_to_wal(self) -> bool:
        """False if another process is just doing so: SQLite does not wait for this lock by itself."""
        try:
            if self._writer.journal_mode != "wal":
                # The switch writes one page. Without a rollback journal on disk, a kill at that moment
                # leaves an empty file or a whole page, and nothing that a reader would have to undo.
                self._writer.execute("PRAGMA journal_mode=memory")
                self._writer.enable_wal()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise faults.store_error(error, self.path) from error
