"""A run as tables, the same on the command line and on the screen. Pure.

Every table fits into 78 cells. What a run has no rows for makes no table; an absent figure is `n/a`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from embedctl.format import ABSENT, format_bytes, format_ms, format_number
from embedctl.records import BackendName, Figure, FigureDelta, Measurement, Run
from embedctl.verdicts import CHANGES_JUDGED_BY

_LEFT: Final = frozenset({"shape", "load", "start", "backend", "verdict", "measured with", "figure"})


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a title."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    """Below the table."""

    @property
    def right(self) -> frozenset[str]:
        """Columns of numbers, which align to the right."""
        return frozenset(self.columns) - _LEFT

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True))

    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The columns' names and the rows, each cell filled up to its column's width."""
        return tuple(
            tuple(
                cell.rjust(width) if column in self.right else cell.ljust(width)
                for column, cell, width in zip(self.columns, row, self.widths, strict=True)
            )
            for row in (self.columns, *self.rows)
        )


def tables(run: Run) -> tuple[Table, ...]:
    """All that was measured, in the order in which one asks for it."""
    of_kind = {
        kind: [row for row in run.measurements if row.kind == kind]
        for kind in ("cold start", "closed loop", "open loop", "bulk", "soak")
    }
    loops = [*of_kind["closed loop"], *of_kind["bulk"], *of_kind["soak"]]
    made = (
        _requests(loops) if loops else None,
        _intervals(loops),
        _throughput(loops),
        _loads(of_kind["open loop"]) if of_kind["open loop"] else None,
        _starts(of_kind["cold start"]) if of_kind["cold start"] else None,
        _energy(of_kind["bulk"]) if of_kind["bulk"] else None,
        _soak(of_kind["soak"]) if of_kind["soak"] else None,
        _memory(run) if any(row.figures for row in run.measurements) else None,
    )
    return tuple(table for table in made if table is not None)


def changes(deltas: Sequence[FigureDelta]) -> Table | None:
    """Figures of two runs whose change matters or is not decided; None where all is said to be the same."""
    told = [delta for delta in deltas if delta.verdict in ("better", "worse")]
    if not told:
        return None
    rows = []
    for delta in told:
        change = delta.change
        sign = "×" if delta.relative else ""
        rows.append(
            (
                delta.shape,
                delta.backend,
                delta.name.removesuffix("_per_s").removesuffix("_ms"),
                f"{format_number(change.estimate)}{sign}" if change else ABSENT,
                _span(Figure("", None, "", change.low, change.high)) if change else ABSENT,
                delta.verdict,
            )
        )
    return Table(
        "Changes that matter",
        ("shape", "backend", "figure", "B/A", "interval", "verdict"),
        tuple(rows),
        changes_notes(deltas),
    )


def changes_notes(deltas: Sequence[FigureDelta]) -> tuple[str, ...]:
    """What the changes are judged by, and how many of them are open."""
    open_ = sum(delta.verdict == "undecided" for delta in deltas)
    return CHANGES_JUDGED_BY, f"undecided, and so not told: {open_} of {len(deltas)} figures"


def _requests(rows: Sequence[Measurement]) -> Table:
    small = any(row.p95_note or _note(row, "p99_ms") for row in rows)
    return Table(
        "Requests (ms)",
        ("shape", "backend", "p50", "p95", "p99", "text/s", "tok/s", "peak", "err"),
        tuple(
            (
                row.shape,
                row.backend,
                format_number(row.p50_ms),
                format_number(row.p95_ms) + ("*" if row.p95_note else " "),
                _number(row, "p99_ms") + ("*" if _note(row, "p99_ms") else " "),
                format_number(row.texts_per_s),
                format_number(row.tokens_per_s),
                format_bytes(row.peak_bytes),
                str(row.errors),
            )
            for row in rows
        ),
        ("* n too small: 72 requests bound p95, 368 bound p99",) if small else (),
    )


def _intervals(rows: Sequence[Measurement]) -> Table | None:
    with_any = [row for row in rows if row.figure("p50_ms")]
    if not with_any:
        return None
    names = ("p50_ms", "p95_ms", "p99_ms")
    return Table(
        "95 % intervals (ms)",
        ("shape", "backend", "n", "p50", "p95", "p99"),
        tuple(
            (
                row.shape,
                row.backend,
                f"{row.requests - row.errors:,}",
                *(_span(row.figure(name)) for name in names),
            )
            for row in with_any
        ),
    )


def _throughput(rows: Sequence[Measurement]) -> Table | None:
    """Where whole blocks were timed: the mean over the blocks."""
    measured = [row for row in rows if row.figure("texts_per_s")]
    if not measured:
        return None
    return Table(
        "Throughput, mean of the blocks (texts/s)",
        ("shape", "backend", "texts/s", "interval"),
        tuple(
            (row.shape, row.backend, _number(row, "texts_per_s"), _span(row.figure("texts_per_s")))
            for row in measured
        ),
    )


def _loads(rows: Sequence[Measurement]) -> Table:
    goals = {note for row in rows if (note := _note(row, "goodput_per_s"))}
    return Table(
        "Poisson arrivals, latency from the intended time (ms)",
        ("load", "backend", "offered/s", "good/s", "p50", "p95", "p99", "lag", "stalls", "err"),
        tuple(
            (
                row.shape.removeprefix("load "),
                row.backend,
                _number(row, "offered_per_s"),
                _number(row, "goodput_per_s"),
                format_number(row.p50_ms),
                format_number(row.p95_ms) + ("*" if row.p95_note else " "),
                _number(row, "p99_ms") + ("*" if _note(row, "p99_ms") else " "),
                _number(row, "lag_p99_ms"),
                _count(row, "stalls"),
                str(row.errors),
            )
            for row in rows
        ),
        (f"good/s: {', '.join(sorted(goals))}; lag: p99 of the generator's own delay",),
    )


def _starts(rows: Sequence[Measurement]) -> Table:
    notes = (f"{row.backend}, {row.shape}: {note}" for row in rows if (note := _note(row, "ready_ms")))
    return Table(
        "Cold start, apart from all the rest",
        ("start", "backend", "n", "ready", "first vector", "in all"),
        tuple(
            (
                row.shape,
                row.backend,
                str(row.requests),
                format_ms(_value(row, "ready_ms")),
                format_ms(_value(row, "first_vector_ms")),
                format_ms(row.p50_ms),
            )
            for row in rows
        ),
        tuple(notes),
    )


def _energy(rows: Sequence[Measurement]) -> Table:
    sources = {f"{row.backend}: {note}" for row in rows if (note := _note(row, "energy_gross_joule"))}
    return Table(
        "Energy per 1,000 texts (J), at the best batch",
        ("backend", "batch", "gross", "interval", "above idle", "interval ", "idle W"),
        tuple(
            (
                row.backend,
                str(row.batch),
                _number(row, "energy_gross_joule"),
                _span(row.figure("energy_gross_joule")),
                _number(row, "energy_above_idle_joule"),
                _span(row.figure("energy_above_idle_joule")),
                _number(row, "idle_watt"),
            )
            for row in rows
        ),
        tuple(sorted(sources)),
    )


def _soak(rows: Sequence[Measurement]) -> Table:
    return Table(
        "Soak: growth of memory; latency of the last third over the first",
        ("backend", "per hour", "interval", "latency", "verdict"),
        tuple(
            (
                row.backend,
                format_bytes(_value(row, "growth_bytes_per_hour")),
                _span(row.figure("growth_bytes_per_hour"), format_bytes),
                f"{_number(row, 'drift_ratio')}×",
                _note(row, "growth_bytes_per_hour"),
            )
            for row in rows
        ),
    )


def _memory(run: Run) -> Table:
    def over(name: BackendName, figure: str, choose: Callable[[list[float]], float]) -> float | None:
        values = [
            value
            for row in run.measurements
            if row.backend == name and (value := _value(row, figure)) is not None
        ]
        return choose(values) if values else None

    def peak(name: BackendName) -> float | None:
        held = [row.peak_bytes for row in run.measurements if row.backend == name and row.peak_bytes]
        return max(held, default=None)

    discrete = any(row.figure("gpu_low_bytes") for row in run.measurements)
    low = "gpu_low_bytes" if discrete else "pool_low_bytes"
    return Table(
        "Memory over the whole run",
        ("backend", "peak", "claimed", "pool's low", "swap", "pressure"),
        tuple(
            (
                name,
                format_bytes(peak(name)),
                format_bytes(over(name, "claimed_bytes", max)),
                format_bytes(over(name, low, min)),
                format_bytes(over(name, "swap_peak_bytes", max)),
                _percent(over(name, "pressure_peak_percent", max)),
            )
            for name in run.backends
        ),
        ("pool's low: least free of the GPU's own memory",) if discrete else (),
    )


def _value(row: Measurement, name: str) -> float | None:
    figure = row.figure(name)
    return figure.value if figure is not None else None


def _number(row: Measurement, name: str) -> str:
    return format_number(_value(row, name))


def _count(row: Measurement, name: str) -> str:
    value = _value(row, name)
    return ABSENT if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f} %"


def _note(row: Measurement, name: str) -> str:
    figure = row.figure(name)
    return figure.note if figure is not None else ""


def _span(figure: Figure | None, show: Callable[[float | None], str] = format_number) -> str:
    """`23.1–25.0`; an end that cannot be given is an ellipsis."""
    if figure is None or (figure.low is None and figure.high is None):
        return ABSENT
    low, high = ("…" if end is None else show(end) for end in (figure.low, figure.high))
    return f"{low}–{high}"
