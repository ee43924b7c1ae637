"""`history`: recorded figures and events."""

from __future__ import annotations

import re
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import app, engine
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_file, emit_json, emit_table, say
from embedctl.errors import UsageError
from embedctl.format import ABSENT, format_duration, format_moment, format_value
from embedctl.metrics import METRICS

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade
    from embedctl.series import History

_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.command()
def history(
    since: Annotated[str, typer.Option(help="15m, 6h, 7d …, or a date and time (ISO 8601).")] = "1h",
    until: Annotated[str | None, typer.Option(help="As --since; default: now.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", "-m", help="Only this figure; may be repeated.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write the finest stored samples to this file; - for stdout.")
    ] = None,
    points: Annotated[int, typer.Option(min=1, help="About so many entries per figure, with --json.")] = 600,
    as_json: JsonOption = False,
) -> None:
    """Figures and events of a stretch of recorded time."""
    now = time.time()
    start, end = moment(since, now), moment(until, now) if until else now
    if start >= end:
        raise UsageError(
            "The stretch of time is empty",
            why=f"--since {since} is not before --until {until or 'now'}",
            remedy="give an earlier --since",
        )
    unknown = [name for name in metric or () if name not in METRICS]
    if unknown:
        raise UsageError(
            f"There is no figure {unknown[0]!r}",
            why="it is none of those that are recorded",
            remedy=f"choose from {', '.join(METRICS)}",
        )
    with engine() as opened:
        if csv is not None:
            _export(opened, csv, start, end, metric)
            return
        found = opened.history(start, end, metrics=metric, points=points)
    if as_json:
        from embedctl.series import history_document

        emit_json("history", history_document(found))
    else:
        _show(found)


def moment(text: str, now: float) -> float:
    """A time as people write it: a span before now (`6h`), or ISO 8601 in local time unless it says more.

    Raises:
        UsageError: It is neither.
    """
    span = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if span:
        return max(0.0, now - float(span[1]) * _SPANS[span[2]])
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError, OSError):  # the last two: a year that the machine's clock has not
        raise UsageError(
            f"{text!r} is no time",
            why="it is neither a span before now nor a date and time",
            remedy="write a span such as 15m, 6h, 7d or a date such as 2026-03-01T14:00",
        ) from None


def _export(
    opened: EngineFacade, target: Path, since: float, until: float, metrics: list[str] | None
) -> None:
    if str(target) == "-":
        with tempfile.TemporaryDirectory(prefix="embedctl-") as folder:
            whole = Path(folder) / "history.csv"
            rows = opened.export_csv(whole, since, until, metrics=metrics)
            emit_file(whole)
    else:
        rows = opened.export_csv(target, since, until, metrics=metrics)
    say(f"{rows} rows")


def _show(found: History) -> None:
    emit(
        f"{format_moment(found.since)} to {format_moment(found.until)}, "
        f"one entry per {format_duration(found.resolution)}"
    )
    filled = {key: series for key, series in found.series.items() if len(series)}
    if filled:
        emit_table(
            ("figure", "min", "mean", "max", "last", "entries"),
            [
                (
                    key,
                    format_value(float(series.low.min()), METRICS[key].unit),
                    # The mean of a counter means nothing.
                    ABSENT
                    if METRICS[key].cumulative
                    else format_value(float(series.mean.mean()), METRICS[key].unit),
                    format_value(float(series.high.max()), METRICS[key].unit),
                    format_value(float(series.mean[-1]), METRICS[key].unit),
                    str(len(series)),
                )
                for key, series in filled.items()
            ],
            right=frozenset({"min", "mean", "max", "last", "entries"}),
        )
    else:
        say("nothing was recorded then; the console and `embedctl record` record")
    for event in sorted(found.events, key=lambda event: event.at):
        emit(f"{format_moment(event.at)}  {event.kind:<10} {event.title}")
