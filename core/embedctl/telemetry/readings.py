"""Collecting the figures of one reading, each with its source or the reason of its absence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from embedctl.records import GpuProcess, Provenance
from embedctl.telemetry.probe import Readings


@lru_cache(maxsize=256)
def source(text: str) -> Provenance:
    return Provenance(source=text)


@lru_cache(maxsize=256)
def absence(text: str) -> Provenance:
    return Provenance(absence=text)


class ReadingBuilder:
    """One reading in the making.

    Args:
        previous: The provenance of the last reading; handed on as the same object while nothing changed,
            so that samples share it and a comparison by identity is enough downstream.
    """

    def __init__(self, previous: Mapping[str, Provenance]) -> None:
        self._previous = previous
        self._values: dict[str, float] = {}
        self._provenance: dict[str, Provenance] = {}

    def put(self, key: str, value: float, origin: str) -> None:
        """Record a figure; one that is not finite counts as absent."""
        if math.isfinite(value):
            self._values[key] = float(value)
            self._provenance[key] = source(origin)
        else:
            self.lack(key, f"{origin} gave {value}")

    def lack(self, key: str, why: str) -> None:
        """Record that a figure is absent, and why."""
        self._values.pop(key, None)
        self._provenance[key] = absence(why)

    def finish(self, processes: tuple[GpuProcess, ...] = ()) -> Readings:
        unchanged = self._provenance == self._previous
        return Readings(self._values, self._previous if unchanged else self._provenance, processes)


class SharedProvenance:
    """Joins the provenance of several parts; the same object as last time while no part's changed."""

    def __init__(self) -> None:
        self._parts: tuple[Mapping[str, Provenance], ...] = ()
        self._joined: Mapping[str, Provenance] = {}

    def join(self, *parts: Mapping[str, Provenance]) -> Mapping[str, Provenance]:
        """Later parts win. Parts are compared by identity, as every part keeps its object while unchanged."""
        if len(parts) != len(self._parts) or any(
            part is not before for part, before in zip(parts, self._parts, strict=True)
        ):
            self._parts = parts
            self._joined = {key: note for part in parts for key, note in part.items()}
        return self._joined
