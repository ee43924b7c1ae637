"""The quick benchmark: backends side by side in ABBA blocks, a few request shapes, one client.

Both backends are measured in every block and never at once. Blocks alternate which comes first, so that a
machine that warms up or slows down favours neither. [duet benchmarking, arXiv 2001.05811]
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from embedctl.errors import BackendError, UsageError
from embedctl.lab.statistics import p95_note, percentile, ratio_interval, verdict
from embedctl.lab.tokens import TokenCounter
from embedctl.lab.workloads import Workload, built_in
from embedctl.progress import CancelToken, Progress
from embedctl.records import (
    BackendName,
    Comparison,
    EmbedResult,
    Fingerprint,
    Machine,
    Measurement,
    Run,
)

WARM_UP: Final = 1
"""Requests of a shape before it is measured: engines capture, compile or reload at a new shape."""


class MemoryPeak(Protocol):
    """The most memory a backend held; filled while it is watched."""

    bytes: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Target:
    """One backend to measure."""

    name: BackendName
    embed: Callable[[Sequence[str], int | None], EmbedResult]
    fingerprint: Callable[[], Fingerprint]
    peak: Callable[[], AbstractContextManager[MemoryPeak]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request and how much of it is enough."""

    name: str
    batch: int
    per_block: int
    """Requests per backend and block."""
    blocks: int
    """At most."""
    budget: float
    """Seconds for the shape, all backends together; at least `_FEWEST_BLOCKS` blocks run all the same."""


_FEWEST_BLOCKS: Final = 2
"""One AB BA pattern. Where that uses up the budget, the backend is slow: a ratio is given and no interval."""

PRESETS: Final[dict[str, tuple[Shape, ...]]] = {
    "quick": (
        Shape("one text", 1, per_block=10, blocks=12, budget=8.0),
        Shape("batch of 16", 16, per_block=2, blocks=8, budget=5.0),
        Shape("batch of 32", 32, per_block=2, blocks=8, budget=5.0),
        Shape("batch of 64", 64, per_block=1, blocks=8, budget=5.0),
        Shape("batch of 128", 128, per_block=1, blocks=6, budget=6.0),
    ),
}


def shapes_of(preset: str) -> tuple[Shape, ...]:
    """The request shapes of a preset.

    Raises:
        UsageError: There is no such preset.
    """
    try:
        return PRESETS[preset]
    except KeyError:
        raise UsageError(
            f"There is no preset {preset!r}",
            why="it is none of those known",
            remedy=f"use {' or '.join(PRESETS)}",
        ) from None


@dataclass(slots=True)
class _Tally:
    """What one backend showed under one shape."""

    latencies_ms: list[float] = field(default_factory=list)
    block_times: list[float] = field(default_factory=list)
    """Mean seconds per good request, one entry per block without an error."""
    texts: int = 0
    tokens: int = 0
    errors: int = 0
    last_error: str = ""


def run_benchmark(
    targets: Sequence[Target],
    *,
    preset: str,
    title: str = "",
    count_tokens: TokenCounter | None,
    machine: Machine | None,
    progress: Progress,
    cancel: CancelToken,
    workload: Workload | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.time,
    timer: Callable[[], float] = time.perf_counter,
) -> Run:
    """Measure the targets (one or two, loaded) and return the run, not yet stored (`id` is 0).

    Raises:
        UsageError: There is no such preset.
        Cancelled: `cancel` was set.
    """
    shapes = shapes_of(preset)
    fingerprints = tuple(target.fingerprint() for target in targets)
    workload, left_out = _that_fit(workload or built_in(), fingerprints, count_tokens)
    order = random.Random(seed)  # the order of blocks, no secret
    started_at, started = clock(), timer()
    measurements: list[Measurement] = []
    comparisons: list[Comparison] = []
    notes: list[str] = []
    for number, shape in enumerate(shapes):
        report = _ShapeProgress(progress, shape, number, len(shapes))
        tallies, rows = _measure_shape(targets, shape, workload, count_tokens, order, report, cancel, timer)
        measurements += rows
        notes += [f"{name}, {shape.name}: {t.last_error}" for name, t in tallies.items() if t.errors]
        if len(targets) == 2:
            comparisons += _compare(shape, tallies)
    return Run(
        id=0,
        at=started_at,
        preset=preset,
        seconds=timer() - started,
        backends=tuple(target.name for target in targets),
        measurements=tuple(measurements),
        comparisons=tuple(comparisons),
        fingerprints=fingerprints,
        workload=workload.label,
        notes=(*notes, *left_out, *_machine_notes(machine)),
        title=title,
    )


def _that_fit(
    workload: Workload, fingerprints: Sequence[Fingerprint], count_tokens: TokenCounter | None
) -> tuple[Workload, tuple[str, ...]]:
    """The texts that no target has to cut, and a note on the others.

    What happens to a text over the limit differs between backends (cut, or refused, found and sent again),
    and would be measured instead of embedding.
    """
    limits = [mark.max_tokens for mark in fingerprints if mark.max_tokens is not None]
    if not limits or count_tokens is None:
        return workload, ()
    fitting = workload.within(min(limits), count_tokens)
    out = len(workload.queries) + len(workload.passages) - len(fitting.queries) - len(fitting.passages)
    return fitting, (f"texts over {min(limits)} tokens, left out: {out}",) if out else ()


@dataclass(frozen=True, slots=True)
class _ShapeProgress:
    """Tells a shape's share of the whole run."""

    progress: Progress
    shape: Shape
    number: int
    of: int

    def __call__(self, share: float) -> None:
        self.progress(self.shape.name, done=(self.number + min(1.0, share)) / self.of, total=1.0)


def _measure_shape(
    targets: Sequence[Target],
    shape: Shape,
    workload: Workload,
    count_tokens: TokenCounter | None,
    order: random.Random,
    report: Callable[[float], None],
    cancel: CancelToken,
    timer: Callable[[], float],
) -> tuple[dict[BackendName, _Tally], list[Measurement]]:
    tallies = {target.name: _Tally() for target in targets}
    request = 0

    def texts(number: int) -> list[str]:
        return [workload.query(number)] if shape.batch == 1 else workload.batch(shape.batch, number)

    with ExitStack() as stack:
        peaks = {target.name: stack.enter_context(target.peak()) for target in targets}
        for target in targets:
            for number in range(WARM_UP):
                cancel.raise_if_cancelled()
                _send(target, texts(-1 - number), _Tally(), None, timer)
        started = timer()
        flipped = order.random() < 0.5
        for block in range(shape.blocks):
            used = timer() - started
            if block >= _FEWEST_BLOCKS and block % 2 == 0 and used > shape.budget:  # whole patterns only
                break
            report(max(block / shape.blocks, used / shape.budget if block >= _FEWEST_BLOCKS else 0.0))
            batches = [texts(request + offset) for offset in range(shape.per_block)]
            request += shape.per_block
            # A B, B A, A B, …: neighbouring blocks form the ABBA pattern.
            turn = targets if (block % 2 == 0) is flipped else tuple(reversed(targets))
            for target in turn:
                _measure_block(target, batches, tallies[target.name], count_tokens, cancel, timer)
    return tallies, [
        _measurement(name, shape, tally, counted=count_tokens is not None, peak=peaks[name])
        for name, tally in tallies.items()
    ]


def _measure_block(
    target: Target,
    batches: Sequence[list[str]],
    tally: _Tally,
    count_tokens: TokenCounter | None,
    cancel: CancelToken,
    timer: Callable[[], float],
) -> None:
    before, errors = len(tally.latencies_ms), tally.errors
    for batch in batches:
        cancel.raise_if_cancelled()
        _send(target, batch, tally, count_tokens, timer)
    if tally.errors == errors:
        tally.block_times.append(statistics.fmean(tally.latencies_ms[before:]) / 1e3)
    else:
        tally.block_times.append(float("nan"))  # keeps the pairing; left out of ratios


def _send(
    target: Target,
    texts: list[str],
    tally: _Tally,
    count_tokens: TokenCounter | None,
    timer: Callable[[], float],
) -> None:
    """One request. An error is counted and never timed: a fast failure is no speed."""
    started = timer()
    try:
        result = target.embed(texts, len(texts))
    except BackendError as error:
        tally.errors += 1
        tally.last_error = error.what
        return
    seconds = timer() - started
    if result.failures:
        tally.errors += 1
        tally.last_error = f"text {result.failures[0].index}: {result.failures[0].what}"
        return
    tally.latencies_ms.append(seconds * 1e3)
    tally.texts += len(texts)
    if count_tokens is not None:
        tally.tokens += count_tokens(texts)


def _measurement(
    name: BackendName, shape: Shape, tally: _Tally, *, counted: bool, peak: MemoryPeak
) -> Measurement:
    seconds = sum(tally.latencies_ms) / 1e3
    return Measurement(
        backend=name,
        shape=shape.name,
        batch=shape.batch,
        requests=len(tally.latencies_ms) + tally.errors,
        errors=tally.errors,
        latencies_ms=tuple(tally.latencies_ms),
        p50_ms=percentile(tally.latencies_ms, 0.50),
        p95_ms=percentile(tally.latencies_ms, 0.95),
        p95_note=p95_note(len(tally.latencies_ms)),
        texts_per_s=tally.texts / seconds if seconds else None,
        tokens_per_s=tally.tokens / seconds if seconds and counted else None,
        tokens=tally.tokens if counted else None,
        peak_bytes=peak.bytes,
        peak_source=peak.source,
    )


def _compare(shape: Shape, tallies: dict[BackendName, _Tally]) -> list[Comparison]:
    """Native against Ollama where both are there, else the first against the second."""
    names = sorted(tallies, key=lambda name: name != "ollama")
    baseline, candidate = names[0], names[1]
    pairs = [
        (a, b)
        for a, b in zip(tallies[baseline].block_times, tallies[candidate].block_times, strict=True)
        if a > 0 and b > 0  # a block with an error is NaN and compares false
    ]
    if not pairs:
        return []
    ratio = ratio_interval([a for a, _ in pairs], [b for _, b in pairs])
    metric: Literal["latency", "throughput"] = "latency" if shape.batch == 1 else "throughput"
    return [Comparison(shape.name, metric, baseline, candidate, ratio, verdict(ratio))]


def _machine_notes(machine: Machine | None) -> tuple[str, ...]:
    if machine is None:
        return ()
    gpu = machine.gpu
    what = gpu.name if gpu else f"no GPU ({machine.gpu_absence or 'reason unknown'})"
    simulated = ("the GPU is simulated; times are this machine's CPU",) if machine.simulated else ()
    return (f"{machine.hostname}: {what}, driver {machine.driver or 'n/a'}", *simulated)
