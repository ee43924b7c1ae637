"""Where a recording broke off without a goodbye: the machine stopped, or the process was killed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from embedctl.engine import EngineFacade
from embedctl.format import format_duration, format_moment
from embedctl.records import Event
from embedctl_console.screens.history_series import OVERVIEW
from embedctl_console.widgets.chart import Mark

_SUSPECTS: Final = 5
"""Starts without a stop that are looked into, the newest first."""
_STILL_RECORDED_S: Final = 3.0
"""Samples that near to the next start mean that another process went on recording: nothing stopped."""


def find_ends(engine: EngineFacade) -> tuple[LostEnd, ...]:
    """[slow] Where the recording broke off, newest first."""
    found = suspects(engine.events(kinds=("start", "stop"), limit=200))[:_SUSPECTS]
    ends = (lost_end(one, _last_sample(engine, one.started.at, one.resumed.at)) for one in found)
    return tuple(end for end in ends if end is not None)


def _last_sample(engine: EngineFacade, since: float, until: float) -> float | None:
    """[slow] The newest sample in [since, until), at the finest resolution stored."""
    last = None
    reach = until - since
    while True:
        found = engine.history(since, until, metrics=OVERVIEW, points=600)
        before = [one.at[one.at < until] for one in found.series.values()]
        moments = [float(at[-1]) for at in before if len(at)]
        if not moments:
            return last
        last = max(moments)
        if reach <= 120.0:
            return last
        since, reach = max(since, last - 1.0), max(120.0, found.resolution * 2)
        until = min(until, since + reach)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A start whose stop is missing, with the start after it."""

    started: Event
    resumed: Event


@dataclass(frozen=True, slots=True)
class LostEnd:
    """The last sample before an end that nobody announced."""

    at: float
    resumed: float
    restarted: bool | None
    """Whether the machine was started anew in between; None if nobody can say."""

    @property
    def what(self) -> str:
        if self.restarted is None:
            return "the recording broke off"
        return "the machine stopped here" if self.restarted else "embedctl was ended from outside"


def suspects(events: Sequence[Event]) -> tuple[Suspect, ...]:
    """Starts without a stop that were followed by another start, newest first.

    A start that names its process is ended by a stop of that process; an older one by the next stop.

    Args:
        events: Starts and stops in any order.
    """
    in_order = sorted(events, key=lambda event: (event.at, event.id or 0))
    found = []
    for index, event in enumerate(in_order):
        if event.kind != "start":
            continue
        later = in_order[index + 1 :]
        resumed = next((other for other in later if other.kind == "start"), None)
        pid = event.detail.get("pid")
        if pid is None:
            ended = bool(later) and later[0].kind == "stop"
        else:
            stops = (other for other in later if other.kind == "stop" and other.detail.get("pid") == pid)
            ended = any(_same_boot(event, stop) is not False for stop in stops)
        if resumed is not None and not ended:
            found.append(Suspect(event, resumed))
    return tuple(reversed(found))


def lost_end(suspect: Suspect, last_sample: float | None) -> LostEnd | None:
    """What a suspect comes to, given the last sample before recording resumed; None where all was well."""
    if last_sample is None or last_sample < suspect.started.at:
        return None
    same = _same_boot(suspect.started, suspect.resumed)
    if suspect.resumed.at - last_sample < _STILL_RECORDED_S and same is not False:
        return None
    return LostEnd(last_sample, suspect.resumed.at, None if same is None else not same)


def _same_boot(a: Event, b: Event) -> bool | None:
    boots = a.detail.get("boot"), b.detail.get("boot")
    return None if None in boots else boots[0] == boots[1]


def lost_mark(end: LostEnd) -> Mark:
    return Mark(end.at, "lost", end.what)


def lost_text(end: LostEnd, tz: tzinfo | None) -> str:
    return f"X {format_moment(end.at, tz)}  {end.what}"


def resumed_text(end: LostEnd) -> str:
    return f"recorded again {format_duration(end.resumed - end.at)} later"
