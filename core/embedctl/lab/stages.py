"""The parts of a benchmark: each measures all targets in one way and gives whole rows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from embedctl.lab.statistics import ENOUGH, percentile, percentile_figure, percentile_note
from embedctl.lab.targets import Answer, Pace, Tally, Target, tokens_of
from embedctl.lab.tokens import TokenCounter
from embedctl.lab.window import SampleWindow, Sampling
from embedctl.lab.workloads import Workload, longest
from embedctl.progress import CancelToken
from embedctl.records import BackendName, Comparison, Figure, Measurement, MeasurementKind

_BATCHES: Final = 16
"""Different ones, before they come again."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a stage found."""

    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Bench:
    """What all stages of a run share."""

    targets: Sequence[Target]
    workload: Workload
    count_tokens: TokenCounter | None
    max_tokens: int | None
    """The least length limit of the targets, special tokens included; None if nobody said."""
    order: random.Random
    pace: Pace
    cancel: CancelToken
    sampling: Sampling
    report: Callable[[float], None] = lambda _: None
    """Tells the share of the present stage that is done."""
    first: dict[BackendName, Answer] = field(default_factory=dict)
    """What the targets that were loaded for this run answered first, to one text."""
    done: list[Measurement] = field(default_factory=list)
    """The rows of earlier stages."""
    faulty: frozenset[BackendName] = frozenset()
    """Targets that failed the gate: they get no verdict."""
    deadline: float = math.inf
    """When measuring must be over, by `pace.now()`."""
    allowed: float = math.inf
    """Seconds for the present stage, where the time does not suffice for all that stages want."""

    def row(self, backend: BackendName, shape: str) -> Measurement | None:
        """An earlier row."""
        return next((row for row in self.done if (row.backend, row.shape) == (backend, shape)), None)

    def batches(self, size: int) -> list[tuple[list[str], int]]:
        """Batches of passages with their tokens, to be sent in turn: made before, for it takes time."""
        made = [self.workload.batch(size, number) for number in range(_BATCHES)]
        return [(texts, tokens_of(texts, self.count_tokens)) for texts in made]

    def text_seconds(self, batch: int, tokens: int | None = None) -> float:
        """About how long a text takes all targets together, by their closed loops; 0 if one has none.

        Args:
            batch: Of a request of so many texts.
            tokens: Of so many tokens, instead of what the texts of such a request have.
        """
        length = tokens or self._tokens_per_text(batch)
        each = [self._text_seconds(target, batch, length) for target in self.targets]
        return sum(each) if all(each) else 0.0

    def _text_seconds(self, target: Target, batch: int, tokens: float | None) -> float:
        """Its tokens at the best rate so far; a text alone, no less than the fastest of those took."""
        rows = [row for row in self.done if row.backend == target.name and row.kind == "closed loop"]
        rates = [(row.batch, row.texts_per_s, row.tokens_per_s) for row in rows if row.texts_per_s]
        if not rates:
            return 0.0
        best = max(per_token or 0.0 for _, _, per_token in rates)
        if tokens is None or not best:
            return 1 / rates[-1][1]
        alone = min((1 / per_text for size, per_text, _ in rates if size == 1), default=0.0)
        return max(tokens / best, alone if batch == 1 else 0.0)

    def _tokens_per_text(self, batch: int) -> float | None:
        if self.count_tokens is None:
            return None
        some = (
            [self.workload.query(number) for number in range(_BATCHES)]
            if batch == 1
            else self.workload.batch(_BATCHES, 0)
        )
        return self.count_tokens(some) / len(some)

    def longest(self, batch: int) -> int:
        """Tokens of the longest text in requests of so many texts; words where nobody counts tokens."""
        texts = self.workload.queries if batch == 1 else self.workload.passages
        return longest(texts, self.count_tokens)

    def in_random_order(self) -> tuple[Target, ...]:
        return tuple(self.order.sample(list(self.targets), len(self.targets)))

    def patterns(self, blocks: int) -> list[tuple[Target, ...]]:
        """The order of targets per block: AB BA or BA AB, drawn anew for every two blocks."""
        turns: list[tuple[Target, ...]] = []
        while len(turns) < blocks:
            first = self.in_random_order()
            turns += [first, first[::-1]]
        return turns[:blocks]


class Stage(Protocol):
    """One part of a preset."""

    @property
    def name(self) -> str:
        """The `shape` of its rows."""

    def wants(self, bench: Bench) -> float:
        """Seconds that it takes in full, by what was measured so far; 0 where it cannot be measured."""

    def least(self, bench: Bench) -> float:
        """Seconds that it takes when it is shortened as far as it can be."""

    def obstacle(self, bench: Bench) -> str:
        """Why it cannot be measured here; empty if it can."""

    def longest(self, bench: Bench) -> int:
        """Tokens (else words) of its longest text, as `Bench.longest`; 0 where it says nothing of speed."""

    def measure(self, bench: Bench) -> Rows:
        """Measure every target, within about `bench.allowed` seconds; a note tells what was shortened for it.

        Raises:
            Cancelled: The run was cancelled; the stage has left nothing behind.
        """


def measurement(
    target: Target,
    kind: MeasurementKind,
    shape: str,
    batch: int,
    tally: Tally,
    window: SampleWindow,
    *,
    seconds: float,
    counted: bool,
    figures: tuple[Figure, ...] = (),
    series: dict[str, tuple[float, ...]] | None = None,
) -> Measurement:
    """A row with what all kinds have; `seconds` is the time in which the tally's texts were embedded."""
    latencies = tally.latencies_ms
    peak, source = window.peak(target.name)
    claimed, claim = target.claimed()
    return Measurement(
        backend=target.name,
        shape=shape,
        batch=batch,
        requests=len(latencies) + tally.errors,
        errors=tally.errors,
        latencies_ms=tuple(latencies),
        p50_ms=percentile(latencies, 0.50),
        p95_ms=percentile(latencies, 0.95),
        p95_note=percentile_note(len(latencies), 0.95),
        texts_per_s=tally.texts / seconds if seconds and tally.texts else None,
        tokens_per_s=tally.tokens / seconds if seconds and counted and tally.texts else None,
        tokens=tally.tokens if counted else None,
        peak_bytes=peak,
        peak_source=source,
        kind=kind,
        figures=(
            *(percentile_figure(latencies, share) for share in ENOUGH),
            *figures,
            Figure("claimed_bytes", claimed, "bytes", note=claim),
            *window.memory_figures(),
            *(
                [Figure("throttled", 1.0, note="the GPU's clocks were held back")]
                if window.throttled()
                else []
            ),
        ),
        series=series or {},
    )


def shortened(shape: str, what: str) -> str:
    """The note on a stage that got less time than it wants."""
    return f"{shape} shortened to fit into the time: {what}"


def error_notes(shape: str, tallies: Sequence[tuple[Target, Tally]]) -> tuple[str, ...]:
    return tuple(f"{target.name}, {shape}: {t.last_error}" for target, t in tallies if t.errors)
