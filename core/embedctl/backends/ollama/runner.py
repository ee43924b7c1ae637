"""Which processes of this machine hold the Ollama model's memory.

Ollama spawns a runner per loaded model (`llama-server --model …/blobs/sha256-… --port …`; before 0.30
`ollama runner --model …`), a child of the process that listens. The runner's NVML bytes are the measured
figure beside `/api/ps`. Its server often runs as another user or in a container, where the listening
socket's owner cannot be seen but names and command lines can.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

RESCAN_SECONDS = 5.0
"""The least time between two looks through all processes: one costs 10–30 ms with a few hundred of them."""
_BLOB = "sha256-"
"""How the files of Ollama's models begin."""
_RUNNER_NAMES = ("llama-server", "ollama_llama_server", "ollama-runner")


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process, as far as it can be seen without rights."""

    pid: int
    parent: int
    name: str
    created: float


class ProcessTable(Protocol):
    """The operating system's processes."""

    def rows(self) -> Sequence[ProcessRow]: ...

    def command_line(self, pid: int) -> Sequence[str]:
        """Empty when it cannot be seen or the process is gone."""

    def alive(self, row: ProcessRow) -> bool:
        """Whether that very process still runs (a PID is used again one day)."""

    def listener(self, port: int) -> int | None:
        """Who listens on a TCP port of this machine; None when nobody does or it cannot be seen."""


class PsutilTable:
    """`ProcessTable` by psutil."""

    def rows(self) -> Sequence[ProcessRow]:
        import psutil

        found = []
        for process in psutil.process_iter(["pid", "ppid", "name", "create_time"]):
            info = process.info
            found.append(
                ProcessRow(info["pid"], info["ppid"] or 0, info["name"] or "", info["create_time"] or 0.0)
            )
        return found

    def command_line(self, pid: int) -> Sequence[str]:
        import psutil

        try:
            return psutil.Process(pid).cmdline()
        except psutil.Error:
            return ()

    def alive(self, row: ProcessRow) -> bool:
        import psutil

        try:
            process = psutil.Process(row.pid)
            return process.create_time() == row.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    def listener(self, port: int) -> int | None:
        import psutil

        try:
            connections = psutil.net_connections("tcp")
        except (psutil.Error, OSError):  # macOS needs rights for it
            return None
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return connection.pid
        return None


@dataclass(frozen=True, slots=True)
class Sighting:
    """The runner's processes as last seen, and what is unsure about them."""

    rows: tuple[ProcessRow, ...] = ()
    note: str = ""

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(row.pid for row in self.rows)


class RunnerFinder:
    """Finds one model's runner and keeps it while it lives.

    Thread-safe. Cheap enough to be asked twice a second: a known runner costs one look at each of its
    processes; a look through all processes happens at most every `RESCAN_SECONDS`.
    """

    def __init__(
        self,
        port: int,
        table: ProcessTable | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port = port
        self._table = table or PsutilTable()
        self._clock = clock
        self._seen = Sighting()
        self._scanned_at: float | None = None
        self._server: ProcessRow | None = None
        self._lock = threading.Lock()

    @property
    def last(self) -> Sighting:
        """As last found; looks at nothing."""
        return self._seen

    def find(self, blob: str | None, *, now: bool = False) -> Sighting:
        """The runner that serves the model file `blob` (its path or `sha256-…` name; None: not known).

        `now` looks again even if the last look was a moment ago.
        """
        with self._lock:
            alive = tuple(row for row in self._seen.rows if self._table.alive(row))
            if alive and alive == self._seen.rows and not now:
                return self._seen
            at = self._clock()
            if not now and self._scanned_at is not None and at - self._scanned_at < RESCAN_SECONDS:
                self._seen = Sighting(alive)
            else:
                self._scanned_at = at
                self._seen = self._scan(blob)
            return self._seen

    def forget(self) -> None:
        """Drop what is known, so that the next `find` looks at once."""
        with self._lock:
            self._seen = Sighting()
            self._scanned_at = None

    def _scan(self, blob: str | None) -> Sighting:
        rows = {row.pid: row for row in self._table.rows()}
        children = _children(rows.values())
        if self._server is None or not self._table.alive(self._server):
            owner = self._table.listener(self._port)
            self._server = rows.get(owner) if owner is not None else None
        runners: list[ProcessRow] = []
        if self._server is not None:
            runners = children.get(self._server.pid, [])
        if not runners:  # the owner cannot be seen, or only forwards the port to a container
            runners = self._by_name(rows, children)
        if blob:
            runners = self._with_model(runners, blob.rsplit("/", 1)[-1])
        note = ""
        if len(runners) > 1:
            note = f"{len(runners)} Ollama runners are loaded and cannot be told apart; all are counted"
        return Sighting(tuple(_with_descendants(runners, children)), note)

    def _with_model(self, runners: list[ProcessRow], file: str) -> list[ProcessRow]:
        """Those that have `file` open by their command lines; else those that do not name another model."""
        commands = {row.pid: " ".join(self._table.command_line(row.pid)) for row in runners}
        ours = [row for row in runners if file in commands[row.pid]]
        if ours or not file.startswith(_BLOB):
            return ours or runners
        return [row for row in runners if _BLOB not in commands[row.pid]]

    def _by_name(
        self, rows: Mapping[int, ProcessRow], children: Mapping[int, list[ProcessRow]]
    ) -> list[ProcessRow]:
        named = [row for row in rows.values() if row.name.startswith(_RUNNER_NAMES)]
        for row in rows.values():
            if row.name == "ollama":
                named += [
                    child
                    for child in children.get(row.pid, [])
                    if child not in named and "runner" in self._table.command_line(child.pid)
                ]
        return named


def _children(rows: Iterable[ProcessRow]) -> dict[int, list[ProcessRow]]:
    children: dict[int, list[ProcessRow]] = {}
    for row in rows:
        children.setdefault(row.parent, []).append(row)
    return children


def _with_descendants(
    roots: Iterable[ProcessRow], children: Mapping[int, list[ProcessRow]]
) -> list[ProcessRow]:
    found: dict[int, ProcessRow] = {}
    waiting = list(roots)
    while waiting:
        row = waiting.pop()
        if row.pid not in found:
            found[row.pid] = row
            waiting += children.get(row.pid, [])
    return list(found.values())
