"""The soak: one load for long, to see whether memory grows and whether requests become slower."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embedctl.lab.stages import Bench, Rows, error_notes, measurement, shortened
from embedctl.lab.statistics import growth
from embedctl.lab.targets import Tally, Target, send
from embedctl.lab.window import SampleWindow
from embedctl.records import Figure, Interval, Measurement

_SETTLE: Final = 0.25
"""The share of readings at the beginning that is left out: pools and caches fill."""
_SHORTEST_S: Final = 30.0
"""With a reading a second, about what a slope needs."""
_LEAK_SHARE: Final = 0.01
_LEAK_BYTES: Final = 16 * 1024**2
"""Growth that matters, per hour: over 1 % of what is held, and over 16 MiB."""


@dataclass(frozen=True, slots=True)
class Soak:
    """Batches of passages from one client, each backend in its turn."""

    length: float
    """Seconds per backend."""
    batch: int = 16
    name: str = "soak"

    def wants(self, bench: Bench) -> float:
        return len(bench.targets) * self.length

    def least(self, bench: Bench) -> float:
        return len(bench.targets) * min(self.length, _SHORTEST_S)

    def obstacle(self, bench: Bench) -> str:
        return ""

    def longest(self, bench: Bench) -> int:
        return bench.longest(self.batch)

    def measure(self, bench: Bench) -> Rows:
        rows: dict[str, Measurement] = {}
        length = min(self.length, bench.allowed / len(bench.targets))
        notes = (
            [shortened(self.name, f"{length:.0f} s of {self.length:.0f} s")] if length < self.length else []
        )
        for number, target in enumerate(bench.in_random_order()):
            tally = Tally()
            with bench.sampling() as window:
                self._load(bench, target, tally, number, length)
            row = self._row(bench, target, tally, window)
            rows[target.name] = row
            notes += [*error_notes(self.name, [(target, tally)]), *_leak_note(row)]
        return Rows(tuple(rows[target.name] for target in bench.targets), notes=tuple(notes))

    def _load(self, bench: Bench, target: Target, tally: Tally, turn: int, length: float) -> None:
        batches, number = bench.batches(self.batch), 0
        started = bench.pace.now()
        while (used := bench.pace.now() - started) < length:
            bench.cancel.raise_if_cancelled()
            bench.report((turn + used / length) / len(bench.targets))
            texts, tokens = batches[number % len(batches)]
            number += 1
            answer = send(target, texts, bench.pace.now)
            tally.add(answer, len(texts), tokens)
            if answer.error:
                bench.pace.sleep(0.1)  # a backend that is away must not be asked a million times

    def _row(self, bench: Bench, target: Target, tally: Tally, window: SampleWindow) -> Measurement:
        times, held = window.held(target.name)
        skip = int(len(times) * _SETTLE)
        slope = growth(times[skip:], held[skip:])
        leak = _growth_figure(window, target, slope, held[skip:])
        third = len(tally.latencies_ms) // 3
        drift = None
        if third:
            early, late = tally.latencies_ms[:third], tally.latencies_ms[-third:]
            drift = statistics.median(late) / statistics.median(early)
        drifted = Figure("drift_ratio", drift, "ratio", note="median latency, last third over first")
        return measurement(
            target, "soak", self.name, self.batch, tally, window, seconds=sum(tally.latencies_ms) / 1e3,
            counted=bench.count_tokens is not None,
            figures=(leak, drifted),
            series={"held_at_s": times, "held_bytes": held},
        )  # fmt: skip


def _growth_figure(
    window: SampleWindow, target: Target, slope: Interval | None, held: Sequence[float]
) -> Figure:
    name, unit = "growth_bytes_per_hour", "bytes_per_hour"
    if slope is None:
        why = f"{len(held)} readings of its memory are too few" if held else window.peak(target.name)[1]
        return Figure(name, None, unit, note=why)
    low, high = (None if end is None else end * 3600 for end in (slope.low, slope.high))
    return Figure(name, slope.estimate * 3600, unit, low, high, judge_growth(slope, statistics.fmean(held)))


def judge_growth(slope: Interval, held: float) -> str:
    """Bytes per second against what matters: `leak`, `no growth that matters` or `undecided`."""
    matters = max(_LEAK_SHARE * held, _LEAK_BYTES) / 3600
    if slope.low is None or slope.high is None:
        return "undecided"
    if slope.low > matters:
        return "leak"
    return "no growth that matters" if slope.high < matters else "undecided, soak longer"


def _leak_note(row: Measurement) -> list[str]:
    growth_ = row.figure("growth_bytes_per_hour")
    if growth_ is None or growth_.note != "leak" or growth_.value is None:
        return []
    low, high = growth_.low or 0.0, growth_.high or 0.0
    mib = 1024**2
    return [
        f"{row.backend}, {row.shape}: leak, memory grows by {growth_.value / mib:,.0f} MiB an hour "
        f"({low / mib:,.0f}–{high / mib:,.0f})"
    ]
