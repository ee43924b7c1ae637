"""Spans that the user marks, and what the figures were in them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from textual.content import Content

from embedctl.format import ABSENT, format_clock, format_duration, format_moment, format_value, local_time
from embedctl.metrics import METRICS, Unit
from embedctl.series import History, WindowStatistics, counted, integrated, window_statistics
from embedctl_console.screens.history_series import STATISTICS
from embedctl_console.screens.history_text import resolution_text
from embedctl_console.widgets.chart import Span

FIGURES: Final = (
    *STATISTICS,
    "native_rate",
    "ollama_rate",
    "gpu_utilization",
    "gpu_temperature",
    "gpu_power",
)
ASKED: Final = (*FIGURES, "gpu_energy")
"""Metrics that the texts below are made of."""

Read = Callable[[float, float], History]
"""Reads a stretch of time with the metrics `ASKED`, as finely as it is stored."""


class MarkedSpans:
    """Up to two spans, A and B, and one whose end is still open. A third one replaces B."""

    def __init__(self) -> None:
        self._whole: list[tuple[float, float]] = []
        self._open: float | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """The whole ones first."""
        found = [Span("AB"[i], *ends) for i, ends in enumerate(self._whole)]
        if self._open is not None:
            found.append(Span("AB"[min(1, len(self._whole))], self._open, None))
        return tuple(found)

    @property
    def whole(self) -> tuple[Span, ...]:
        return tuple(span for span in self.spans if span.until is not None)

    def mark(self, at: float) -> None:
        """The begin of a span, or the end of the one that was begun; in either order."""
        if self._open is None:
            self._open = at
        elif at != self._open:
            self.add(min(at, self._open), max(at, self._open))

    def add(self, since: float, until: float) -> None:
        self._open = None
        self._whole = [*self._whole[:1], (since, until)]

    def clear(self) -> bool:
        """Forget all; False when there was nothing to forget."""
        had = bool(self.spans)
        self._whole, self._open = [], None
        return had


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """One span and its figures, by metric key."""

    name: str
    since: float
    until: float
    resolution: float
    found: dict[str, WindowStatistics]
    energy: float | None
    """Joules, by the GPU's counter, else by its power; None when neither was recorded."""
    energy_source: str


def figures_of(name: str, history: History, since: float, until: float) -> SpanFigures:
    """The statistics of [since, until)."""
    found = {}
    for key in FIGURES:
        statistics = window_statistics(history.series[key], since, until) if key in history.series else None
        if statistics is not None:
            found[key] = statistics
    energy, source = None, ""
    if "gpu_energy" in history.series:
        energy, source = counted(history.series["gpu_energy"], since, until), "the GPU's counter"
    if energy is None and "gpu_power" in history.series:
        energy, source = integrated(history.series["gpu_power"], since, until), "its power, added up"
    return SpanFigures(name, since, until, history.resolution, found, energy, source)


def read_figures(read: Read, spans: Sequence[Span]) -> tuple[SpanFigures, ...]:
    """[slow] Each span's figures from the store; all must be whole."""
    return tuple(
        figures_of(span.name, read(span.since, span.until), span.since, span.until)
        for span in spans
        if span.until is not None
    )


def figures_text(spans: Sequence[SpanFigures], width: int, tz: tzinfo | None) -> Content:
    """One span in full, or two side by side with the change from the first to the second."""
    names = max((len(one.name) for one in spans), default=0)
    heads = [_head(one, names, tz) for one in spans]
    if not any(one.found for one in spans):
        return Content("\n").join([*heads, Content(""), Content("Nothing was recorded in it.")])
    rows = _one(spans[0]) if len(spans) == 1 else _two(spans[0], spans[1], wide=width >= 112)
    note = "Percentiles and means are over the entries' means; least and greatest are as they were read."
    return Content("\n").join(
        [*heads, Content(""), *_table(rows), Content(""), Content.styled(note, "$text-muted")]
    )


def _head(span: SpanFigures, names: int, tz: tzinfo | None) -> Content:
    """Name, begin, end and length, on one line of 80 cells; `names` is the width of the longest name."""
    length = format_duration(span.until - span.since)
    since, until = (local_time(at, tz) for at in (span.since, span.until))
    end = format_clock if since.date() == until.date() else format_moment
    return Content.assemble(
        (f"{span.name:<{names}}  " if span.name else "", "bold $text-accent"),
        f"{format_moment(span.since, tz)} – {end(span.until, tz)}",
        (f"  {length}, entries of {resolution_text(span.resolution)}", "$text-muted"),
    )


def _one(span: SpanFigures) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "min", "mean", "p50", "p95", "p99", "max")]
    for key, found in span.found.items():
        values = (found.low, found.mean, found.p50, found.p95, found.p99, found.high)
        rows.append((METRICS[key].label, *(format_value(value, METRICS[key].unit) for value in values)))
    rows.append(("energy", format_value(span.energy, "joule"), *[""] * 5))
    return rows


def _two(a: SpanFigures, b: SpanFigures, *, wide: bool) -> list[tuple[str, ...]]:
    parts: tuple[tuple[str, Callable[[WindowStatistics], float]], ...] = (
        ("mean", lambda one: one.mean),
        ("p95", lambda one: one.p95),
        ("max", lambda one: one.high),
    )[: 3 if wide else 2]
    rows: list[tuple[str, ...]] = [
        ("", *(cell for name, _ in parts for cell in (f"{name} {a.name}", b.name, "change")))
    ]
    for key in dict.fromkeys((*a.found, *b.found)):
        unit, cells = METRICS[key].unit, []
        for _, part in parts:
            values = [part(one.found[key]) if key in one.found else None for one in (a, b)]
            cells += [*(format_value(value, unit) for value in values), change(unit, *values)]
        rows.append((METRICS[key].label, *cells))
    energies = (a.energy, b.energy)
    cells = [*(format_value(value, "joule") for value in energies), change("joule", *energies)]
    rows.append(("energy", *cells, *[""] * (len(rows[0]) - 4)))
    return rows


def change(unit: Unit, before: float | None, after: float | None) -> str:
    """`+12 %`; a difference in the unit for percentages and temperatures, whose ratio says nothing."""
    if before is None or after is None:
        return ABSENT
    if unit in ("percent", "celsius", "flag"):
        difference = after - before
        return "=" if abs(difference) < 0.05 else f"{difference:+.1f}"
    if before <= 0:
        return "=" if before == after else ABSENT
    percent = (after / before - 1) * 100
    if abs(percent) < 0.05:
        return "="
    return f"{percent:+.0f} %" if abs(percent) >= 9.95 else f"{percent:+.1f} %"


def _table(rows: Sequence[tuple[str, ...]]) -> list[Content]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        Content.styled(
            "  ".join(
                [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            ).rstrip(),
            "" if index else "bold",
        )
        for index, row in enumerate(rows)
    ]
