"""Bulk work at each backend's best batch, and the energy that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from embedctl.lab.stages import Bench, Rows, error_notes, measurement, shortened
from embedctl.lab.statistics import ENOUGH, mean_interval, ratio_interval, verdict
from embedctl.lab.targets import Tally, Target, send
from embedctl.lab.window import SampleWindow
from embedctl.records import BackendName, Comparison, Figure, Measurement

SWEEP: Final = (16, 32, 64, 128)
_AS_GOOD: Final = 0.95
"""A smaller batch with 95 % of the best throughput is as good: it waits less and holds less memory."""
_SHORTEST_S: Final = 2.5
"""Of a block: with a sample a second, there are two in it."""
_FEWEST_BLOCKS: Final = 2


def best_batch(bench: Bench, target: Target) -> int | None:
    """The smallest batch of the sweep that is as good as the best; None where none was measured."""
    return min(_as_good(bench, target), default=None)


def bulk_batches(bench: Bench) -> dict[BackendName, int]:
    """The batch for each target's bulk work: the same for all where one is as good as the best for each.

    Else what lies within the sweep's noise would decide on it, and two that are alike would get unlike work.
    """
    good = {target.name: _as_good(bench, target) for target in bench.targets}
    shared = set.intersection(*good.values())
    return {name: min(shared or sizes, default=SWEEP[0]) for name, sizes in good.items()}


def best_batch_note(bench: Bench, target: Target) -> str:
    """`native: best batch 64 (about 9,300 tokens a request), 1,210 texts/s`; empty without a choice."""
    size = best_batch(bench, target)
    row = bench.row(target.name, f"batch of {size}")
    if row is None or row.texts_per_s is None or len(_swept(bench, target)) < 2:
        return ""
    good = row.requests - row.errors
    budget = f" (about {row.tokens / good:,.0f} tokens a request)" if row.tokens and good else ""
    few = ", n too small" if good < ENOUGH[0.50] else ""
    return f"{target.name}: best batch {size}{budget}, {row.texts_per_s:,.0f} texts/s{few}"


def _as_good(bench: Bench, target: Target) -> set[int]:
    rates = _swept(bench, target)
    best = max(rates.values(), default=0.0)
    return {size for size, rate in rates.items() if rate >= _AS_GOOD * best}


def _swept(bench: Bench, target: Target) -> dict[int, float]:
    """Texts per second by batch size, as far as measured."""
    return {
        size: row.texts_per_s
        for size in SWEEP
        if (row := bench.row(target.name, f"batch of {size}")) is not None and row.texts_per_s
    }


@dataclass(slots=True)
class _Blocks:
    """One backend's blocks of bulk work."""

    target: Target
    batch: int
    tally: Tally
    rates: list[float]
    """Texts per second, per block."""
    watts: list[float | None]
    source: str = "no block was measured"
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Bulk:
    """Both backends in ABBA blocks, long enough for a reading of energy each."""

    length: float
    """Seconds per backend and block."""
    blocks: int
    idle: float
    """Seconds without load before the first block, for the power at idle."""
    name: str = "bulk"

    def wants(self, bench: Bench) -> float:
        return self.idle + len(bench.targets) * self.blocks * self.length

    def least(self, bench: Bench) -> float:
        return self._fitted(0.0, len(bench.targets)).wants(bench)

    def _fitted(self, allowed: float, targets: int) -> Bulk:
        """Shorter blocks, and where these would be too short, fewer."""
        whole = self.idle + targets * self.blocks * self.length
        if allowed >= whole:
            return self
        length, idle = (
            max(min(_SHORTEST_S, seconds), seconds * allowed / whole) for seconds in (self.length, self.idle)
        )
        fitting = idle + targets * self.blocks * length <= allowed
        return replace(
            self,
            length=length,
            idle=idle,
            blocks=self.blocks if fitting else min(self.blocks, _FEWEST_BLOCKS),
        )

    def obstacle(self, bench: Bench) -> str:
        unknown = [target.name for target in bench.targets if best_batch(bench, target) is None]
        return f"no batch of {' and '.join(unknown)} was measured" if unknown else ""

    def longest(self, bench: Bench) -> int:
        return bench.longest(max(bulk_batches(bench).values()))

    def measure(self, bench: Bench) -> Rows:
        fitted = self._fitted(bench.allowed, len(bench.targets))
        if fitted == self:
            return self._measured(bench)
        rows = fitted._measured(bench)
        what = (
            f"{fitted.blocks} blocks of {fitted.length:.1f} s instead of {self.blocks} of {self.length:g} s"
        )
        return replace(rows, notes=(*rows.notes, shortened(self.name, what)))

    def _measured(self, bench: Bench) -> Rows:
        sizes = bulk_batches(bench)
        of = {target.name: _Blocks(target, sizes[target.name], Tally(), [], []) for target in bench.targets}
        batches = {one.batch: bench.batches(one.batch) for one in of.values()}
        with bench.sampling() as whole:
            with bench.sampling() as resting:
                bench.pace.sleep(self.idle)
            bench.cancel.raise_if_cancelled()
            number = 0
            for block, turn in enumerate(bench.patterns(self.blocks)):
                bench.report(block / self.blocks)
                for target in turn:
                    one = of[target.name]
                    number = self._block(bench, one, batches[one.batch], number)
        idle, _ = resting.mean_power()
        rows = tuple(self._row(bench, one, idle, whole) for one in of.values())
        notes = error_notes(self.name, [(one.target, one.tally) for one in of.values()])
        return Rows(rows, self._compare(bench, list(of.values())), notes)

    def _block(
        self, bench: Bench, one: _Blocks, batches: Sequence[tuple[list[str], int]], number: int
    ) -> int:
        texts_before, started = one.tally.texts, bench.pace.now()
        with bench.sampling() as window:
            while bench.pace.now() - started < self.length:
                bench.cancel.raise_if_cancelled()
                texts, tokens = batches[number % len(batches)]
                number += 1
                answer = send(one.target, texts, bench.pace.now)
                one.tally.add(answer, len(texts), tokens)
                if answer.error:
                    bench.pace.sleep(0.1)
        seconds = bench.pace.now() - started
        one.busy += seconds
        rate = (one.tally.texts - texts_before) / seconds
        one.rates.append(rate if rate else float("nan"))
        watt, one.source = window.mean_power()
        one.watts.append(watt)
        return number

    def _row(self, bench: Bench, one: _Blocks, idle: float | None, window: SampleWindow) -> Measurement:
        rate = mean_interval([rate for rate in one.rates if rate > 0])
        return measurement(
            one.target, "bulk", self.name, one.batch, one.tally, window, seconds=one.busy,
            counted=bench.count_tokens is not None,
            figures=(
                *([Figure("texts_per_s", rate.estimate, "per_second", rate.low, rate.high)] if rate else []),
                _per_thousand("energy_gross_joule", one, 0.0),
                _per_thousand("energy_above_idle_joule", one, idle),
                Figure("idle_watt", idle, "watt", note="loaded, no requests"),
            ),
            series={
                "texts_per_s": tuple(one.rates),
                "watt": tuple(float("nan") if watt is None else watt for watt in one.watts),
            },
        )  # fmt: skip

    def _compare(self, bench: Bench, both: list[_Blocks]) -> tuple[Comparison, ...]:
        if len(both) != 2 or bench.faulty:
            return ()
        baseline, candidate = sorted(both, key=lambda one: one.target.name != "ollama")
        pairs = [
            (1 / a, 1 / b) for a, b in zip(baseline.rates, candidate.rates, strict=True) if a > 0 and b > 0
        ]
        if not pairs:
            return ()
        ratio = ratio_interval([a for a, _ in pairs], [b for _, b in pairs])
        names = baseline.target.name, candidate.target.name
        return (Comparison(self.name, "throughput", *names, ratio, verdict(ratio)),)


def _per_thousand(name: str, one: _Blocks, idle: float | None) -> Figure:
    """Joule per 1,000 texts: mean power over throughput, block by block, less the power at idle."""
    if idle is None:
        return Figure(name, None, "joule", note="the power at idle is not known")
    costs = [
        (watt - idle) / rate * 1000
        for watt, rate in zip(one.watts, one.rates, strict=True)
        if watt is not None and rate > 0
    ]
    found = mean_interval(costs)
    if found is None:
        return Figure(name, None, "joule", note=one.source)
    return Figure(name, found.estimate, "joule", found.low, found.high, f"per 1,000 texts, {one.source}")
