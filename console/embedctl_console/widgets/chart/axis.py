"""Scales and ticks that people can read. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final

from embedctl.format import local_time
from embedctl.metrics import Unit


@dataclass(frozen=True, slots=True)
class Scale:
    """The value axis: what its ends stand for, and the labelled values between them."""

    bottom: float
    top: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    """Of one width each, so that their numbers stand in line."""
    log: bool = False


@dataclass(frozen=True, slots=True)
class TimeTick:
    at: float
    label: str


_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL: Final[dict[Unit, tuple[tuple[float, str], ...]]] = {
    "percent": ((1.0, "%"),),
    "celsius": ((1.0, "°C"),),
    "watt": ((1.0, "W"), (1e3, "kW")),
    "megahertz": ((1.0, "MHz"), (1e3, "GHz")),
    "joule": ((1.0, "J"), (1e3, "kJ"), (1e6, "MJ")),
    "ms": ((1.0, "ms"), (1e3, "s")),
    "per_second": ((1.0, "/s"), (1e3, "k/s")),
    "flag": ((1.0, ""),),
}
FROM_ZERO: Final[frozenset[Unit]] = frozenset({"bytes", "percent", "per_second", "flag"})
"""Units whose length on the screen must stand for their size."""
WITHOUT_LOG: Final[frozenset[Unit]] = frozenset({"bytes", "percent", "flag"})
"""Units of sizes and shares, which a logarithmic scale would belie."""


def value_scale(
    low: float, high: float, unit: Unit, rows: int, *, log: bool = False, ceiling: float | None = None
) -> Scale:
    """A scale that holds [low, high] in `rows` lines of characters, with a tick about every second line.

    It begins at 0 for sizes, shares and rates, and for other units where the values come near to 0.
    `ceiling` fixes the upper end, such as 100 % or the size of the pool. A logarithmic scale is given only
    where all values are positive, and not for sizes and shares.
    """
    if log and low > 0 and unit not in WITHOUT_LOG:
        return _log_scale(low, high, unit, rows)
    if ceiling is not None:
        high = max(ceiling, low)
    if unit in FROM_ZERO or 0 <= low < 0.6 * high:
        low = min(0.0, low)
    if not high > low:  # one value, or nothing but zeros
        high = low + (abs(low) * 0.1 or 1.0)
    most = max(2, min(6, 1 + (rows - 1) // 2))
    step = _nice_step((high - low) / (most - 1), unit)
    bottom = math.floor(low / step + 1e-9) * step
    part = step / 4  # whole steps would leave up to half of a low chart empty
    top = high if ceiling is not None else math.ceil(high / part - 1e-9) * part
    if bottom + step > top:  # a scale with one tick says nothing
        step = _nice_step(step / 2.5, unit)
    count = int((top - bottom) / step + 1e-9) + 1
    ticks = tuple(bottom + i * step for i in range(count))
    return Scale(bottom, top, ticks, _labels(ticks, unit, top))


def _nice_step(least: float, unit: Unit) -> float:
    """The next round step: 1, 2, 5 × 10ⁿ, or a power of two for bytes."""
    if unit == "bytes":
        return max(1.0, 2.0 ** math.ceil(math.log2(least) - 1e-9))
    power = 10.0 ** math.floor(math.log10(least) + 1e-9)
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def _log_scale(low: float, high: float, unit: Unit, rows: int) -> Scale:
    """From one of 1, 2, 5 × 10ⁿ to another, no further than the values need; ticks there or by decades."""
    powers = range(math.floor(math.log10(low) + 1e-9) - 1, math.ceil(math.log10(high) - 1e-9) + 2)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    bottom = max(step for step in steps if step <= low * (1 + 1e-9))
    top = min(step for step in steps if step >= high * (1 - 1e-9) and step > bottom)
    ticks = [step for step in steps if bottom <= step <= top]
    most = max(2, rows // 2)
    if len(ticks) > most:
        decades = [tick for tick in ticks if steps.index(tick) % 3 == 0]
        ticks = decades[:: -(-len(decades) // most)] if len(decades) > 1 else [bottom, top]
    labels = [_labels((tick,), unit, tick)[0] for tick in ticks]
    width = max(map(len, labels))
    return Scale(bottom, top, tuple(ticks), tuple(label.rjust(width) for label in labels), log=True)


def _labels(ticks: tuple[float, ...], unit: Unit, top: float) -> tuple[str, ...]:
    """The ticks in one multiple of the unit, all with as many decimals as the finest needs."""
    size, suffix = _multiple(unit, max(abs(top), abs(ticks[0])))
    scaled = [tick / size for tick in ticks]
    decimals = max(next(d for d in range(7) if d == 6 or abs(x - round(x, d)) < 1e-7) for x in scaled)
    numbers = [f"{x:,.{decimals}f}" for x in scaled]
    gap = "" if unit in ("per_second", "flag") else " "
    width = max(map(len, numbers))
    return tuple(f"{number:>{width}}{gap}{suffix}" for number in numbers)


def _multiple(unit: Unit, top: float) -> tuple[float, str]:
    if unit == "bytes":
        power = min(len(_BINARY) - 1, int(math.log2(top) / 10)) if top >= 1 else 0
        return 1024.0**power, _BINARY[power]
    return [entry for entry in _DECIMAL[unit] if entry[0] == 1 or top >= entry[0] * 10][-1]


# Time ---------------------------------------------------------------------------------------------------

_SECONDS: Final = (1, 2, 5, 10, 15, 30)
_CLOCK_STEPS: Final = (
    *_SECONDS,
    *(60 * n for n in _SECONDS),
    *(3600 * n for n in (1, 2, 3, 6, 12)),
)
_DAY_STEPS: Final = (1, 2, 7, 14)
_MONTH_STEPS: Final = (1, 3, 6, 12)


def time_ticks(since: float, until: float, tz: tzinfo | None, most: int) -> tuple[TimeTick, ...]:
    """At most `most` round moments of local time in [since, until), labelled without repeating the date.

    Steps go from one second to one year and count from local midnight, from the first of a month or from
    Mondays, so that they stay round when the clocks change.
    """
    most = max(1, most)
    span = round(until - since, 3)  # a live window's differs from frame to frame by what a float loses
    for step in _CLOCK_STEPS:
        if span / step <= most:
            return _clock_ticks(since, until, tz, step)
    start, end = local_time(since, tz), local_time(until, tz)
    for days in _DAY_STEPS:
        if span / (days * 86_400) <= most:
            return _date_ticks(_days(start, end, days), since, until, tz, "%b %d")
    for months in _MONTH_STEPS:
        if span / (months * 30.5 * 86_400) <= most:
            return _date_ticks(_months(start, end, months), since, until, tz, "%b %Y")
    return _date_ticks(_months(start, end, 12), since, until, tz, "%Y")


def _clock_ticks(since: float, until: float, tz: tzinfo | None, step: int) -> tuple[TimeTick, ...]:
    ticks = []
    day = local_time(since, tz).replace(hour=0, minute=0, second=0, microsecond=0)
    while (midnight := _timestamp(day, tz)) < until:
        following = _timestamp(day + timedelta(days=1), tz)
        # By the wall clock where the day's length matters; by elapsed time where an hour may come twice.
        if step > 3600:
            moments = [_timestamp(day + timedelta(seconds=past), tz) for past in range(0, 86_400, step)]
        else:
            first = max(0, math.ceil((since - midnight) / step))
            last = math.ceil((min(until, following) - midnight) / step)
            moments = [midnight + number * step for number in range(first, last)]
        ticks += [
            TimeTick(at, _clock_label(local_time(at, tz), step)) for at in moments if since <= at < until
        ]
        day += timedelta(days=1)
    return tuple(ticks)


def _clock_label(moment: datetime, step: int) -> str:
    if moment.hour == moment.minute == moment.second == 0:
        return moment.strftime("%b %d")
    return moment.strftime("%H:%M:%S" if step < 60 else "%H:%M")


def _timestamp(moment: datetime, tz: tzinfo | None) -> float:
    """The instant at which the wall clock in `tz` shows `moment`, by the zone's rules on that day."""
    return moment.replace(tzinfo=tz).timestamp()


def _days(start: datetime, end: datetime, step: int) -> list[datetime]:
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    while day <= end:
        if (step < 7 and (day.day - 1) % step == 0) or (step >= 7 and day.toordinal() % step == 1):
            found.append(day)
        day += timedelta(days=1)
    return found


def _months(start: datetime, end: datetime, step: int) -> list[datetime]:
    month = start.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = []
    while month <= end:
        if (month.month - 1) % step == 0:
            found.append(month)
        month = (month + timedelta(days=32)).replace(day=1)
    return found


def _date_ticks(
    moments: list[datetime], since: float, until: float, tz: tzinfo | None, pattern: str
) -> tuple[TimeTick, ...]:
    instants = ((_timestamp(moment, tz), moment) for moment in moments)
    return tuple(TimeTick(at, moment.strftime(pattern)) for at, moment in instants if since <= at < until)
