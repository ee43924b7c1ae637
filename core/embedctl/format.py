"""Figures as people read them. Pure; every screen shows numbers, sizes and times through these functions.

An absent figure (`None`, or not finite) is shown as `n/a`, never as 0. Thousands are set apart with a comma;
sizes are binary (1 GiB = 2**30 bytes). Times are Unix seconds, shown in `tz`, or local time when it is None.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, tzinfo
from typing import Final

from embedctl.metrics import Unit

ABSENT: Final = "n/a"

_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SUFFIX: Final[dict[Unit, str]] = {
    "percent": " %",
    "celsius": " °C",
    "watt": " W",
    "megahertz": " MHz",
    "ms": " ms",
    "per_second": "/s",
}


def format_bytes(value: float | None) -> str:
    """A size with three significant digits: `512 B`, `1.50 KiB`, `23.4 GiB`; whole numbers from 100 up."""
    if value is None or not math.isfinite(value):
        return ABSENT
    power = 0
    scaled = abs(value)
    while power < len(_BINARY) - 1 and scaled >= 1023.5:  # 1023.5 would be shown as 1,024
        scaled /= 1024
        power += 1
    sign = "-" if value < 0 else ""
    digits = f"{scaled:.0f}" if power == 0 else format_number(scaled)
    return f"{sign}{digits} {_BINARY[power]}"


def format_number(value: float | None) -> str:
    """A plain number with about three significant digits: `0.042`, `1.25`, `12.5`, `125`, `12,500`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995 or size == 0:
        return f"{value:.2f}" if value else "0"
    return f"{value:.3f}"


def format_count(value: int | None) -> str:
    """A whole number: `1,234,567`."""
    return ABSENT if value is None else f"{value:,}"


def format_value(value: float | None, unit: Unit) -> str:
    """A figure of `unit` with its unit: `2.13 GiB`, `24.1 ms`, `61 °C`, `280/s`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if unit == "bytes":
        return format_bytes(value)
    if unit == "flag":
        return "yes" if value else "no"
    if unit == "joule":
        return f"{value / 1000:,.1f} kJ" if abs(value) >= 1000 else f"{value:.0f} J"
    if unit in ("celsius", "megahertz"):
        return f"{value:,.0f}{_SUFFIX[unit]}"
    return format_number(value) + _SUFFIX[unit]


def format_rate(value: float | None, unit: str) -> str:
    """A speed in `unit` per second; `"bytes"` (or `"B"`) gives `12.3 MiB/s`."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if unit in ("bytes", "B"):
        return f"{format_bytes(value)}/s"
    return f"{format_number(value)} {unit}/s" if unit else f"{format_number(value)}/s"


def format_ms(value: float | None) -> str:
    """A latency in milliseconds: `0.42 ms`, `24.1 ms`, `1,240 ms`."""
    return format_value(value, "ms")


def format_duration(seconds: float | None) -> str:
    """A length of time in its two largest parts: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`, `6 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def format_ago(at: float | None, now: float) -> str:
    """How long ago a moment was, in one part: `just now`, `12 s ago`, `5 min ago`, `3 h ago`, `2 d ago`."""
    if at is None:
        return ABSENT
    past = max(0.0, now - at)
    if past < 2:
        return "just now"
    for limit, step, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if past < limit:
            return f"{int(past // step)} {name} ago"
    return f"{int(past // 86_400)} d ago"


def format_clock(at: float | None, tz: tzinfo | None = None) -> str:
    """The time of day: `14:03:27`."""
    return ABSENT if at is None else local_time(at, tz).strftime("%H:%M:%S")


def format_moment(at: float | None, tz: tzinfo | None = None) -> str:
    """Date and time: `2026-03-01 14:03:27`."""
    return ABSENT if at is None else local_time(at, tz).strftime("%Y-%m-%d %H:%M:%S")


def local_time(at: float, tz: tzinfo | None = None) -> datetime:
    """The aware datetime of `at` in `tz` (None: the machine's zone with its rules at that moment)."""
    return datetime.fromtimestamp(at, UTC).astimezone(tz)


def without_password(text: str) -> str:
    """A text with the user and password left out of every address in it."""
    return re.sub(r"//[^/@\s]*@", "//…@", text)


def site_of(address: str) -> str:
    """An address without its path: whoever knows a webhook's may post to it."""
    return re.sub(r"^(https?://[^/?#]*).+", r"\1/…", without_password(address))
