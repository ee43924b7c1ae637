"""Which process belongs to which backend: the owners' processes and everything below them.

Looking at every process of the machine twice a second would cost more than all other readings together, so
only the owners' own trees are walked, and only every other second; a process in question that is not in
them yet is settled by climbing its parents.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from embedctl.records import BackendName
from embedctl.telemetry.probe import Owners

_CLIMB_LIMIT = 64  # a chain of parents longer than this is a loop made by reused PIDs


class ProcessTrees:
    """The trees of processes under the owners, as of at most `refresh_s` ago. Used from one thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, refresh_s: float = 2.0) -> None:
        self._clock = clock
        self._refresh_s = refresh_s
        self._owners: dict[BackendName, frozenset[int]] = {}
        self._owner_by_pid: dict[int, BackendName | None] = {}
        self._processes: dict[int, psutil.Process] = {}
        self._looked_at = float("-inf")

    def update(self, owners: Owners) -> None:
        """Follow `owners`; the trees are walked again when they changed or have grown old."""
        now = self._clock()
        if owners != self._owners or not 0 <= now - self._looked_at < self._refresh_s:
            self._owners = dict(owners)
            self._looked_at = now
            self._walk()

    def owner_of(self, pid: int) -> BackendName | None:
        """The backend that `pid` belongs to, None if to no backend (or if it has ended)."""
        if pid not in self._owner_by_pid:
            self._owner_by_pid[pid] = self._climb(pid)
        return self._owner_by_pid[pid]

    def processes(self, backend: BackendName) -> Iterator[psutil.Process]:
        """The processes of one backend that were alive at the last look."""
        for pid, process in self._processes.items():
            if self._owner_by_pid.get(pid) == backend:
                yield process

    def _walk(self) -> None:
        roots = {pid: backend for backend, pids in self._owners.items() for pid in pids}
        known = self._processes
        self._owner_by_pid, self._processes = {}, {}
        for root, backend in roots.items():
            pending = [root]
            while pending:
                pid = pending.pop()
                if pid in self._processes or roots.get(pid, backend) != backend:
                    continue  # seen already, or the root of another backend's tree
                try:
                    process = known.get(pid)
                    if process is None or not process.is_running():  # ended, or its PID was given away
                        process = psutil.Process(pid)
                except psutil.Error:
                    continue
                self._processes[pid] = process
                self._owner_by_pid[pid] = backend
                pending += _children(process)

    def _climb(self, pid: int) -> BackendName | None:
        roots = {root: backend for backend, pids in self._owners.items() for root in pids}
        try:
            for _ in range(_CLIMB_LIMIT):
                if pid in roots:
                    return roots[pid]
                if pid <= 1:
                    return None
                pid = psutil.Process(pid).ppid()
        except psutil.Error:
            pass
        return None


def _children(process: psutil.Process) -> list[int]:
    """The direct children of a process.

    Linux keeps them per thread in /proc (CONFIG_PROC_CHILDREN); elsewhere psutil walks all processes.
    """
    tasks = Path(f"/proc/{process.pid}/task")
    try:
        found: list[int] = []
        for thread in os.listdir(tasks):  # noqa: PTH208  (a string per thread is all that is needed)
            found += map(int, (tasks / thread / "children").read_bytes().split())
        return found
    except OSError:
        pass
    try:
        return [child.pid for child in process.children()]
    except psutil.Error:
        return []


def process_name(pid: int) -> str | None:
    """The short name of a process; None if it has ended or belongs to another PID namespace."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None
