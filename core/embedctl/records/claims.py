"""The design document's claims, beside what was measured on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from embedctl.records.runs import Interval

ClaimVerdict = Literal["holds", "does not hold", "undecided", "not measured"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim with its answer."""

    id: str
    topic: str
    claim: str
    """In one clause, as the design document has it."""
    claimed: str
    """Its figure, in words."""
    measured: str
    """The figure here, in words; empty where nothing was measured."""
    interval: Interval | None
    """Of `measured`, where it has one."""
    verdict: ClaimVerdict
    why: str
    """What the verdict rests on, or what is missing."""
    evidence: tuple[str, ...]
    """Where it was measured, such as `run 7` and `study 4`."""
    ask: str = ""
    """The command that would measure it, where it was not or not enough."""


@dataclass(frozen=True, slots=True)
class ChartSeries:
    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...] = ()
    """As many as `y`, or none."""
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimChart:
    """Figures that are better seen than read."""

    title: str
    kind: Literal["dots", "lines", "steps"]
    """`dots`: one mark for each label; `lines`: points joined; `steps`: a cumulative share."""
    x_label: str
    y_label: str
    series: tuple[ChartSeries, ...]
    labels: tuple[str, ...] = ()
    """Of the places 0, 1, … of the categories, where the chart has such."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class ClaimsReport:
    at: float
    machine: str
    """Host, GPU and driver, as the newest evidence has them."""
    simulated: bool
    """The evidence comes from the demo: its GPU and its Ollama server are simulated."""
    claims: tuple[Claim, ...]
    charts: tuple[ClaimChart, ...]
    sources: Mapping[str, str]
    """What stands behind `run 7` or `study 4`, in one line."""
    notes: tuple[str, ...] = ()
