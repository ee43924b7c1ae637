"""What every source of machine figures can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from embedctl.records import BackendName, GpuProcess, Machine, Provenance

Owners = Mapping[BackendName, frozenset[int]]
"""The processes of each backend."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Figures of one moment, by metric key (`embedctl.metrics`)."""

    values: Mapping[str, float]
    provenance: Mapping[str, Provenance]
    """Where each figure comes from or why it is absent. The same object as last time while unchanged."""
    processes: tuple[GpuProcess, ...] = ()


class Probe(Protocol):
    """Reads figures of the machine. Used from one thread."""

    def machine(self) -> Machine:
        """What is fixed, capabilities included; looked up once, never raises."""

    def read(self, owners: Owners) -> Readings:
        """One reading. Never raises: a figure that fails is absent with its reason, the others stay."""

    def close(self) -> None: ...
