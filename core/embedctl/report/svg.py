"""Charts as inline SVG: dots with intervals, lines, and cumulative shares. Pure; every text is escaped.

Series differ by colour (Okabe and Ito's, distinct to colour-blind eyes), by dash and by mark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from embedctl.records import ChartSeries, ClaimChart

WIDTH, HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 34, 60
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: Final = ("", "7 4", "2 3", "9 3 2 3", "4 4", "1 4")
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        step = _nice((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def chart_svg(chart: ClaimChart) -> str:
    """The chart as one `<svg>` element with a title for screen readers; empty if it has no point."""
    ys = [value for one in chart.series for value in _ys(one)]
    xs = [value for one in chart.series for value in one.x]
    if not ys:
        return ""
    x, y = _axes(chart, xs, ys)
    parts = [*_grid(chart, x, y)]
    for number, one in enumerate(chart.series):
        parts += _series(chart, one, number, x, y)
    parts += _legend(chart)
    title = escape(chart.title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{title}</title>{"".join(parts)}</svg>'
    )


def _axes(chart: ClaimChart, xs: Sequence[float], ys: Sequence[float]) -> tuple[_Axis, _Axis]:
    if chart.labels:
        x = _Axis(-0.6, len(chart.labels) - 0.4, _LEFT, WIDTH - _RIGHT)
    else:
        x = _Axis(*_span(xs, 0.0), _LEFT, WIDTH - _RIGHT)
    if chart.kind == "steps":
        low, high = 0.0, 1.0
    elif chart.kind == "lines" or min(ys) <= 0 or max(ys) > 2 * min(ys):
        low, high = _span([0.0, *ys], 0.06)
        low = min(low, 0.0) if min(ys) < 0 else 0.0
    else:
        low, high = _span(ys, 0.15)
    return x, _Axis(low, high, HEIGHT - _BOTTOM, _TOP)


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * margin or (abs(high) * 0.05 or 1.0) * (low == high)
    return low - room, high + room


def _ys(one: ChartSeries) -> Iterator[float]:
    for value in (*one.y, *one.low, *one.high):
        if value is not None and math.isfinite(value):
            yield value


def _grid(chart: ClaimChart, x: _Axis, y: _Axis) -> Iterator[str]:
    for value in y.ticks():
        yield f'<line class="g" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        yield _tick_text("end", _LEFT - 8, y(value) + 4, value)
    bottom = HEIGHT - _BOTTOM
    yield f'<line class="a" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    if chart.labels:
        slanted = sum(map(len, chart.labels)) > 80
        for place, label in enumerate(chart.labels):
            at = x(place)
            turn = f' transform="rotate(-28 {at:.1f} {bottom + 14})" text-anchor="end"' if slanted else (
                ' text-anchor="middle"'
            )  # fmt: skip
            yield f'<text class="t" x="{at:.1f}" y="{bottom + 18}"{turn}>{escape(label)}</text>'
    else:
        for value in x.ticks():
            yield _tick_text("middle", x(value), bottom + 18, value)
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    if chart.x_label:
        yield (
            f'<text class="l" text-anchor="middle" x="{middle:.0f}" y="{HEIGHT - 22}">'
            f"{escape(chart.x_label)}</text>"
        )
    yield (
        f'<text class="l" text-anchor="middle" transform="rotate(-90 16 {(_TOP + bottom) / 2:.0f})" x="16" '
        f'y="{(_TOP + bottom) / 2:.0f}">{escape(chart.y_label)}</text>'
    )


def _series(chart: ClaimChart, one: ChartSeries, number: int, x: _Axis, y: _Axis) -> Iterator[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    dash = f' stroke-dasharray="{_DASHES[number % len(_DASHES)]}"' if number else ""
    aside = (number - (len(chart.series) - 1) / 2) * 12 if chart.kind == "dots" else 0.0
    points = [(x(px) + aside, y(py)) for px, py in zip(one.x, one.y, strict=True)]
    if chart.kind != "dots" and points:
        path = _path(points, stepped=chart.kind == "steps")
        yield f'<path fill="none" stroke="{colour}" stroke-width="2"{dash} d="{path}"/>'
    if chart.kind == "steps":
        return
    for place, (px, py) in enumerate(points):
        low = one.low[place] if one.low else None
        high = one.high[place] if one.high else None
        if low is not None and high is not None:
            yield (
                f'<line stroke="{colour}" stroke-width="2" x1="{px:.1f}" x2="{px:.1f}" y1="{y(low):.1f}" '
                f'y2="{y(high):.1f}"/>'
            )
        yield _mark(number, px, py, colour)


def _path(points: Sequence[tuple[float, float]], *, stepped: bool) -> str:
    first, *rest = points
    parts = [f"M{first[0]:.1f} {first[1]:.1f}"]
    for px, py in rest:
        parts.append(f"H{px:.1f}V{py:.1f}" if stepped else f"L{px:.1f} {py:.1f}")
    return "".join(parts)


def _mark(number: int, x: float, y: float, colour: str) -> str:
    if number % 2:
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'


def _legend(chart: ClaimChart) -> Iterator[str]:
    at = float(_LEFT)
    for number, one in enumerate(chart.series):
        colour = _COLOURS[number % len(_COLOURS)]
        if chart.kind == "dots":
            yield _mark(number, at + 8, 16, colour)
        else:
            dash = f' stroke-dasharray="{_DASHES[number % len(_DASHES)]}"' if number else ""
            ends = f'x1="{at:.0f}" x2="{at + 18:.0f}" y1="16" y2="16"'
            yield f'<line stroke="{colour}" stroke-width="2"{dash} {ends}/>'
        yield f'<text class="l" x="{at + 24:.0f}" y="20">{escape(one.name)}</text>'
        at += 44 + 7.5 * len(one.name)


def _tick_text(anchor: str, x: float, y: float, value: float) -> str:
    return f'<text class="t" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{_tick(value)}</text>'


def _tick(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"


def _nice(step: float) -> float:
    """The next of 1, 2, 5, 10, … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
