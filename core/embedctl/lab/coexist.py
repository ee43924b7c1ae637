"""A language model generating and a backend embedding: each alone, and both together.

Rounds of three blocks in random order: the model alone, the backend alone, both. So what the machine does
over time is in all three alike, and what is lost and gained is taken within each round: texts that wait for
each other are no independent draws, rounds are. Texts arrive at the same moments alone and together, at a
share of what the backend manages alone, and latency counts from the intended moment.
"""

from __future__ import annotations

import math
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from embedctl.errors import BackendError, Cancelled
from embedctl.lab.open_loop import Shot, fire, poisson
from embedctl.lab.stages import Bench
from embedctl.lab.statistics import (
    ENOUGH,
    mean_interval,
    percentile,
    percentile_figure,
    ratio_interval,
)
from embedctl.lab.targets import Pace, Target, send
from embedctl.records import Coexistence, CoexistReport, CoexistVerdict, Figure, Interval, Sample

LEAST_KEPT: Final = 0.8
"""Of the model's tokens a second: who loses more than a fifth notices."""
MOST_SLOWER: Final = 2.0
"""Times the embedding p99."""
ROUNDS: Final = 6
BLOCK_SECONDS: Final = 10.0
_SHARE: Final = 0.3
"""Of the texts a second that the backend manages alone, one after the other."""
_WARM_UP: Final = 20
_CLIENTS: Final = 16
_START_S: Final = 300.0
"""Time for the model to begin."""
_END_S: Final = 10.0
"""Time for its next piece, with which it sees that it is to stop; after that it is left to its own end."""
_WORST_FIRST: Final[tuple[CoexistVerdict, ...]] = (
    "do not fit", "disturb each other", "undecided", "fit side by side",
)  # fmt: skip


class Generating(Protocol):
    """A language model."""

    @property
    def name(self) -> str: ...

    @property
    def simulated(self) -> bool: ...

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """Generate until `stopped`; once for each piece that arrives.

        Raises:
            BackendError: It cannot go on.
        """


@dataclass(frozen=True, slots=True)
class Room:
    """What is left of the memory, by a sample; and how much must be."""

    available: Callable[[Sample], int | None]
    floor: int
    source: str


@dataclass(frozen=True, slots=True)
class Plan:
    rounds: int = ROUNDS
    block_seconds: float = BLOCK_SECONDS
    least_kept: float = LEAST_KEPT
    most_slower: float = MOST_SLOWER


@dataclass(slots=True)
class _Seen:
    """What the rounds showed."""

    tokens_alone: list[float] = field(default_factory=list)
    tokens_together: list[float] = field(default_factory=list)
    alone: list[tuple[Shot, ...]] = field(default_factory=list)
    """By round."""
    together: list[tuple[Shot, ...]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def side_by_side(target: Target, model: Generating, bench: Bench, plan: Plan, room: Room) -> Coexistence:
    """Measure one backend beside the model.

    Args:
        bench: Its clock, texts, cancel token and sampling are used; `report` is told the share done.

    Raises:
        BackendError: The model does not generate, or the backend does not embed even alone.
        Cancelled: The run was cancelled.
    """
    rate = _SHARE / _alone_seconds(target, bench)
    seen = _Seen()
    for number in range(plan.rounds):
        arrivals = poisson(rate, plan.block_seconds, random.Random(number))
        for place, kind in enumerate(bench.order.sample(("model", "backend", "both"), 3)):
            bench.report((number + place / 3) / plan.rounds)
            bench.cancel.raise_if_cancelled()
            if kind == "model":
                with _generation(model, bench) as tokens:
                    bench.pace.sleep(plan.block_seconds)
                    seen.tokens_alone.append(tokens.rate())
            elif kind == "backend":
                seen.alone.append(_fire(target, arrivals, bench, plan))
            else:
                with bench.sampling() as window, _generation(model, bench) as tokens:
                    seen.together.append(_fire(target, arrivals, bench, plan))
                    seen.tokens_together.append(tokens.rate())
                seen.samples += window.known
            bench.cancel.raise_if_cancelled()
    return _row(target, seen, rate, plan, room)


def judged(
    rows: Sequence[Coexistence], model: Generating, plan: Plan, notes: Sequence[str] = ()
) -> CoexistReport:
    """All backends' rows as one report."""
    worst = min((row.verdict for row in rows), key=_WORST_FIRST.index)
    return CoexistReport(
        verdict=worst,
        reasons=tuple(f"{row.backend}: {reason}" for row in rows for reason in row.reasons),
        model=model.name,
        simulated=model.simulated,
        block_seconds=plan.block_seconds,
        rows=tuple(rows),
        limits={"tokens_kept": plan.least_kept, "p99_ratio": plan.most_slower},
        notes=tuple(notes),
    )


def headline(report: CoexistReport) -> str:
    """The answer in one sentence, the verdict's word first."""
    parts = []
    for row in report.rows:
        kept = "n/a" if row.tokens_kept is None else f"{row.tokens_kept.estimate:.0%}"
        slower = "n/a" if row.p99_ratio is None else f"{row.p99_ratio.estimate:.2f}×"
        parts.append(f"beside {row.backend} it keeps {kept} of its tokens/s, embedding p99 {slower}")
    return f"{report.verdict}: {report.model}; {'; '.join(parts)}"


def verdict_of(
    kept: Interval | None,
    slower: Interval | None,
    errors: int,
    least: Figure,
    plan: Plan,
    floor: int,
    errors_alone: int = 0,
) -> tuple[CoexistVerdict, tuple[str, ...]]:
    """The verdict on one backend, and what it rests on where it is not the best one."""
    no_room = []
    if errors > errors_alone:
        no_room.append(f"{errors} requests failed, or were not answered in time, beside the model")
    if least.value is not None and least.value < floor:
        left, kept_free = least.value / 2**30, floor / 2**30
        no_room.append(f"only {left:.1f} GiB were left, less than the {kept_free:.1f} GiB kept free")
    if no_room:
        return "do not fit", tuple(no_room)
    bad, open_ = [], []
    if errors_alone:
        open_.append(
            f"{errors_alone} requests failed, or were not answered in time, without the model already"
        )
    if kept is None or kept.low is None or kept.high is None:
        open_.append("too few rounds to tell the tokens/s lost")
    elif kept.high < plan.least_kept:
        bad.append(f"the model keeps {kept.estimate:.0%} of its tokens/s ({kept.low:.0%} to {kept.high:.0%})")
    elif kept.low < plan.least_kept:
        open_.append(
            f"the model keeps {kept.low:.0%} to {kept.high:.0%} of its tokens/s; "
            f"{plan.least_kept:.0%} is the limit"
        )
    if slower is None or slower.low is None or slower.high is None:
        open_.append(
            f"too few texts to tell the p99 gained: it takes {ENOUGH[0.99]} alone and together, in 3 rounds"
        )
    elif slower.low > plan.most_slower:
        bad.append(f"embedding p99 is {slower.estimate:.1f}× as long ({slower.low:.1f} to {slower.high:.1f})")
    elif slower.high > plan.most_slower:
        open_.append(
            f"embedding p99 is {slower.low:.1f} to {slower.high:.1f}× as long; "
            f"{plan.most_slower:g}× is the limit"
        )
    if least.value is None:
        open_.append(f"nobody can say what memory was left: {least.note}")
    if bad:
        return "disturb each other", (*bad, *open_)
    return ("undecided", tuple(open_)) if open_ else ("fit side by side", ())


class _Tokens:
    """Counts pieces as they arrive, from the first one on."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._lock = threading.Lock()
        self._since = math.inf
        self._count = 0
        self.error: BackendError | None = None
        self.begun = threading.Event()

    def add(self) -> None:
        with self._lock:
            if self.begun.is_set():
                self._count += 1
            else:  # the first piece waited for the prompt; from here on it is generation alone
                self._since = self._pace.now()
                self.begun.set()

    def rate(self) -> float:
        """Pieces a second so far; half a piece at least, since nothing has no ratio.

        Raises:
            BackendError: The model has stopped.
        """
        if self.error is not None:
            raise self.error
        with self._lock:
            return max(self._count, 0.5) / max(1e-9, self._pace.now() - self._since)


class _generation:  # noqa: N801  # used as a function
    """The model generates inside the block, which begins with its first piece."""

    def __init__(self, model: Generating, bench: Bench) -> None:
        self._model = model
        self._cancel = bench.cancel
        self._stop = threading.Event()
        self._tokens = _Tokens(bench.pace)
        self._thread = threading.Thread(target=self._run, name="coexist-generate", daemon=True)

    def __enter__(self) -> _Tokens:
        self._thread.start()
        began = time.monotonic()
        while not self._tokens.begun.wait(0.05):
            if self._cancel.cancelled:
                self._stop.set()  # it ends with its next piece, or with the connection
                raise Cancelled
            if self._tokens.error is not None or time.monotonic() - began > _START_S:
                self._stop.set()
                raise self._tokens.error or BackendError(
                    f"{self._model.name} does not generate",
                    why=f"no token came within {_START_S:g} s",
                    remedy="see the Ollama server's log, or choose another model",
                )
        return self._tokens

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            for _ in self._model.pieces(self._stop.is_set):
                self._tokens.add()
        except BackendError as error:
            self._tokens.error = error


def _alone_seconds(target: Target, bench: Bench) -> float:
    """The median time of a text, after a few to warm up.

    Raises:
        BackendError: None was answered.
    """
    answers = []
    for number in range(2 * _WARM_UP):
        bench.cancel.raise_if_cancelled()
        answers.append(send(target, [bench.workload.query(number)], bench.pace.now))
    good = [answer.seconds for answer in answers[_WARM_UP:] if not answer.error]
    if not good:
        raise BackendError(
            f"{target.name} does not embed, even alone",
            why=answers[-1].error,
            remedy="`embedctl check` tells more",
        )
    return max(statistics.median(good), 1e-4)


def _fire(target: Target, arrivals: Sequence[float], bench: Bench, plan: Plan) -> tuple[Shot, ...]:
    return fire(target, arrivals, bench, _CLIENTS, limit=2 * plan.block_seconds)


def _row(target: Target, seen: _Seen, rate: float, plan: Plan, room: Room) -> Coexistence:
    alone, together = ([one for some in rounds for one in some] for rounds in _latencies(seen))
    errors, errors_alone = (
        sum(bool(shot.error) for shots in rounds for shot in shots) for rounds in (seen.together, seen.alone)
    )
    kept = ratio_interval(seen.tokens_together, seen.tokens_alone)
    slower = p99_gained(*_latencies(seen))
    least = _least(seen.samples, room)
    verdict, reasons = verdict_of(kept, slower, errors, least, plan, room.floor, errors_alone)
    return Coexistence(
        backend=target.name,
        verdict=verdict,
        reasons=reasons,
        rounds=len(seen.tokens_together),
        tokens_alone=mean_interval(seen.tokens_alone),
        tokens_together=mean_interval(seen.tokens_together),
        tokens_kept=kept,
        p50_alone_ms=percentile(alone, 0.50),
        p50_together_ms=percentile(together, 0.50),
        p99_alone=percentile_figure(alone, 0.99),
        p99_together=percentile_figure(together, 0.99),
        p99_ratio=slower,
        offered_per_s=rate,
        errors=errors,
        least_memory=least,
        memory_floor=room.floor,
        latencies_alone_ms=tuple(round(value, 3) for value in alone),
        latencies_together_ms=tuple(round(value, 3) for value in together),
    )


def _latencies(seen: _Seen) -> tuple[list[list[float]], list[list[float]]]:
    """Milliseconds of the good requests alone and together, by round."""
    alone, together = (
        [[shot.latency * 1e3 for shot in shots if not shot.error] for shots in rounds]
        for rounds in (seen.alone, seen.together)
    )
    return alone, together


def p99_gained(alone: Sequence[Sequence[float]], together: Sequence[Sequence[float]]) -> Interval | None:
    """How many times as long p99 is together, by the rounds' own ratios; without ends from too few texts.

    In simulations of a queue at 30 and at 50 % of its capacity, slowed down or not, it covers 92 to 97 %; the
    bootstrap of single texts covers 65 to 100 %.
    """
    whole = [percentile([one for some in rounds for one in some], 0.99) for rounds in (alone, together)]
    if not whole[0] or not whole[1]:
        return None
    pairs = [
        (x, y)
        for a, b in zip(alone, together, strict=True)
        if (x := percentile(a, 0.99)) and (y := percentile(b, 0.99))
    ]
    if len(pairs) < len(alone) or min(sum(map(len, rounds)) for rounds in (alone, together)) < ENOUGH[0.99]:
        return Interval(whole[1] / whole[0], None, None)
    return ratio_interval([y for _, y in pairs], [x for x, _ in pairs])


def _least(samples: Sequence[Sample], room: Room) -> Figure:
    left = [bytes_ for sample in samples if (bytes_ := room.available(sample)) is not None]
    if left:
        return Figure("least_memory", float(min(left)), "bytes", note=room.source)
    return Figure("least_memory", None, "bytes", note="no sample of it was taken meanwhile")
