"""The last minute before a lost end as it went by: what was recorded, and a playhead over it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Final

import numpy as np
from textual.content import Content

from embedctl.format import format_clock, format_duration, format_value
from embedctl.metrics import METRICS
from embedctl.records import Event
from embedctl.series import Floats, History, Series, reading_at
from embedctl_console.screens.history_ends import LostEnd, lost_mark
from embedctl_console.screens.history_spans import change
from embedctl_console.screens.history_text import resolution_text
from embedctl_console.widgets.chart import Mark, marks_of
from embedctl_console.widgets.text import bar

REPLAYED_S: Final = 60.0
"""Seconds before the end that are played; as much stands in the charts at any time."""
AFTER_S: Final = 6.0
"""Seconds right of the playhead: room in which, at the end, nothing comes any more."""
SPEEDS: Final = (1, 4, 10)
_COMPARED_S: Final = 10.0
"""Seconds over which the read-out tells the change."""


@dataclass(frozen=True, slots=True)
class Footage:
    """What was recorded of the last minute, and of the minute before, which the charts begin with."""

    end: LostEnd
    history: History
    moments: Floats
    """The times of its entries, ascending, shape (n,); the last one is where the recording broke off."""

    @classmethod
    def of(cls, end: LostEnd, history: History) -> Footage:
        every = [series.at for series in history.series.values()]
        at = np.unique(np.concatenate(every)) if every else np.empty(0)
        return cls(end, history, at[(at >= end.at - REPLAYED_S) & (at <= end.at)])

    @property
    def plays(self) -> bool:
        """Whether there is more than one moment to be seen."""
        return len(self.moments) > 1

    def seen_at(self, at: float) -> History:
        """What was known at a moment."""
        return replace(
            self.history,
            series={key: _until(one, at) for key, one in self.history.series.items()},
            events=tuple(event for event in self.history.events if event.at <= at),
        )

    def marks_at(self, at: float) -> tuple[Mark, ...]:
        marks = marks_of(self.seen_at(at).events)
        return (*marks, lost_mark(self.end)) if at >= self.end.at else marks


def _until(series: Series, at: float) -> Series:
    some = slice(int(np.searchsorted(series.at, at, side="right")))
    return Series(
        series.key, series.at[some], series.low[some], series.mean[some], series.high[some], series.gap
    )


class Playhead:
    """Where a replay stands, whether it plays, and how fast."""

    def __init__(self, moments: Floats) -> None:
        """At the first of `moments` (two at least, ascending), playing at the usual speed."""
        self._moments = moments
        self.at = float(moments[0])
        """Unix seconds; between two entries while it plays."""
        self.playing = True
        self.speed = SPEEDS[0]

    @property
    def _index(self) -> int:
        return max(0, int(np.searchsorted(self._moments, self.at, side="right")) - 1)

    @property
    def shown(self) -> float:
        """The time of the entry that it has come to."""
        return float(self._moments[self._index])

    @property
    def ended(self) -> bool:
        return self.at >= float(self._moments[-1])

    @property
    def share(self) -> float:
        """How much is behind it, from 0 to 1."""
        first, last = self._moments[0], self._moments[-1]
        return float((self.at - first) / (last - first))

    def advance(self, seconds: float) -> None:
        """Let time pass; at the end it stops."""
        if self.playing:
            self._go(self.at + max(0.0, seconds) * self.speed)

    def play_or_pause(self) -> None:
        if self.ended:
            self.at, self.playing = float(self._moments[0]), True
        else:
            self.playing = not self.playing

    def step(self, entries: int) -> None:
        """Pause, and go on or back by some entries."""
        self.playing = False
        index = min(max(self._index + entries, 0), len(self._moments) - 1)
        self._go(float(self._moments[index]))

    def jump(self, share: float) -> None:
        """Go to a place: 0 is the begin, 1 the end."""
        first, last = float(self._moments[0]), float(self._moments[-1])
        self._go(first + min(max(share, 0.0), 1.0) * (last - first))

    def change_speed(self, direction: int) -> None:
        index = SPEEDS.index(self.speed) + direction
        self.speed = SPEEDS[min(max(index, 0), len(SPEEDS) - 1)]

    def _go(self, at: float) -> None:
        self.at = min(max(at, float(self._moments[0])), float(self._moments[-1]))
        if self.ended:
            self.playing = False


# Words


def state_text(head: Playhead, charset: str) -> str:
    """`REPLAY 4×`, with a sign for whether it plays."""
    speed = f"{head.speed}{'x' if charset == 'ascii' else '×'}"
    if head.ended:
        return "STOPPED"
    return f"REPLAY {speed}" if head.playing else f"PAUSED {speed}"


def transport_text(head: Playhead, footage: Footage, width: int, tz: tzinfo | None, charset: str) -> Content:
    """Two lines: state, moment and what is left; a bar up to the end."""
    ended, plays, paused = ("X", ">", "=") if charset == "ascii" else ("■", "▶", "‖")
    sign, color = (ended, "$text-error") if head.ended else (paused, "$text-warning")
    if head.playing:
        sign, color = plays, "$text-success"
    left = footage.end.at - head.at
    rest = footage.end.what if head.ended else f"{format_duration(left)} before the end"
    line = Content.assemble(
        (f"{sign} {state_text(head, charset)}", f"bold {color}"),
        (f"  {format_clock(head.shown, tz)}", "bold"),
        f"  {rest}",
    )
    note = Content.styled(f"entries of {resolution_text(footage.history.resolution)}", "$text-muted")
    if line.cell_length + note.cell_length + 2 <= width:
        line = Content.assemble(line, " " * (width - line.cell_length - note.cell_length), note)
    else:
        line = line.truncate(width, ellipsis=True)
    course = Content.assemble(bar(head.share, width - 2, charset), (" X", "$text-error"))
    return Content("\n").join([line, course])


def readings_text(seen: History, at: float) -> Content:
    """Every figure that was recorded, as it stood at a moment, with its change since ten seconds before."""
    rows = []
    for key, metric in METRICS.items():
        series = seen.series.get(key)
        if series is None or not len(series):
            continue
        now, before = (
            reading_at(series, moment, max(series.gap, seen.resolution) / 2)
            for moment in (at, at - _COMPARED_S)
        )
        value = None if now is None else now.mean
        moved = change(metric.unit, None if before is None else before.mean, value)
        rows.append((metric.label, format_value(value, metric.unit), "" if metric.cumulative else moved))
    if not rows:
        return Content("nothing was recorded")
    head = ("", "now", f"in {_COMPARED_S:.0f} s")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(3)]
    return Content("\n").join(
        Content.styled(
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}", "" if index else "bold"
        )
        for index, row in enumerate((head, *rows))
    )


def last_event(seen: History) -> Event | None:
    """The newest event that was known."""
    return max(seen.events, key=lambda event: event.at, default=None)
