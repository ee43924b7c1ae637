"""A process table that a test writes down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from embedctl.backends.ollama.runner import ProcessRow


@dataclass
class FakeProcesses:
    processes: list[ProcessRow] = field(default_factory=list)
    commands: dict[int, Sequence[str]] = field(default_factory=dict)
    listeners: dict[int, int] = field(default_factory=dict)
    scans: int = 0

    def add(self, pid: int, parent: int, name: str, *command: str) -> ProcessRow:
        row = ProcessRow(pid, parent, name, created=float(pid))
        self.processes.append(row)
        self.commands[pid] = command
        return row

    def end(self, pid: int) -> None:
        self.processes = [row for row in self.processes if row.pid != pid]

    def rows(self) -> Sequence[ProcessRow]:
        self.scans += 1
        return list(self.processes)

    def command_line(self, pid: int) -> Sequence[str]:
        return self.commands.get(pid, ())

    def alive(self, row: ProcessRow) -> bool:
        return row in self.processes

    def listener(self, port: int) -> int | None:
        return self.listeners.get(port)
