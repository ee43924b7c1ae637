"""What the History screen says in words and columns of figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any

from embedctl.format import format_clock, format_duration, format_moment, format_value, local_time
from embedctl.metrics import METRICS
from embedctl.records import Event
from embedctl.series import History, window_statistics
from embedctl_console.widgets.chart import marks_of


def window_text(since: float, until: float, tz: tzinfo | None) -> str:
    """A window in words, without saying the date twice: `Mar 04 11:45 – 12:00`."""
    start, end = local_time(since, tz), local_time(until, tz)
    clock = "%H:%M:%S" if until - since < 600 else "%H:%M"
    same_day = start.date() == end.date()
    return f"{start.strftime(f'%b %d {clock}')} – {end.strftime(clock if same_day else f'%b %d {clock}')}"


def resolution_text(seconds: float) -> str:
    """How much time one entry stands for: `1 s`, `10 s`, `1.5 s`, `1 min`, `1 h`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def event_line(event: Event, tz: tzinfo | None, *, date: bool) -> str:
    """One event in one line: `S 11:40:50 ollama → native in 9.8 s`."""
    at = local_time(event.at, tz).strftime("%b %d %H:%M") if date else format_clock(event.at, tz)
    return f"{marks_of([event])[0].letter} {at} {event.title}"


def event_text(event: Event, tz: tzinfo | None) -> str:
    """All that is known of one event, its detail in the second line."""
    about = f"{event.kind} · {event.backend}" if event.backend else event.kind
    text = f"{marks_of([event])[0].letter} {format_moment(event.at, tz)}  {event.title}  ({about})"
    details = _flat(event.detail)
    return f"{text}\n{' · '.join(details)}" if details else text


def _flat(detail: Mapping[str, Any], prefix: str = "") -> list[str]:
    parts: list[str] = []
    for key, value in detail.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            parts += _flat(value, f"{name} ")
        elif value is not None and value != "":
            parts.append(f"{name}: {_plain(value)}")
    return parts


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def statistics_text(history: History, keys: Sequence[str], since: float, until: float) -> str:
    """Least, mean and greatest of each series in the window, in columns; series without entries left out."""
    rows: list[tuple[str, ...]] = [("", "min", "mean", "max")]
    for key in keys:
        found = window_statistics(history.series[key], since, until) if key in history.series else None
        if found:
            unit = METRICS[key].unit
            figures = (format_value(value, unit) for value in (found.low, found.mean, found.high))
            rows.append((METRICS[key].label, *figures))
    if len(rows) == 1:
        return "nothing to count"
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = (
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
    return "\n".join(
        [*lines, f"in {format_duration(until - since)}, entries of {resolution_text(history.resolution)}"]
    )
