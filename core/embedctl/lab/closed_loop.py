"""A closed loop: clients that send their next request when they have the answer to the last.

Both backends are measured in every block and never at once. Which comes first is drawn anew for each ABBA
pattern, so that a machine that warms up or slows down favours neither. [duet benchmarking, arXiv 2001.05811]
"""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from embedctl.lab.stages import Bench, Rows, error_notes, measurement, shortened
from embedctl.lab.statistics import mean_interval, percentile, ratio_interval, verdict
from embedctl.lab.targets import Answer, Tally, Target, send, tokens_of
from embedctl.records import Comparison, Figure

FEWEST_BLOCKS: Final = 2
"""One ABBA pattern. Where that uses up the budget, the backend is slow: a ratio is given and no interval."""
_STEADY: Final = 1.25
"""A backend is warm when its last three requests lie within 25 % of each other."""
_WARM_UP: Final = 12
_WARM_UP_SHARE: Final = 0.1
"""Of a shape's budget, for each backend, at most."""
_SLOW_WARM_UP: Final = 3.0
"""Steady requests' worth of time that a warm-up may cost before it is told."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """One kind of request and how much of it is enough."""

    name: str
    batch: int
    per_block: int
    """Requests per client, backend and block; several clients send more where the budget has room."""
    blocks: int
    """At most."""
    budget: float
    """Seconds for the shape, all backends together; at least `FEWEST_BLOCKS` blocks run all the same.

    Where the whole run's time does not suffice for these, one block runs, not warmed up: one measured
    request says more than none.
    """
    tokens: int | None = None
    """The length of every text; None: as they come, questions for one text and passages for several."""
    clients: int = 1
    rest: float = 0.0
    """Seconds without load before each turn of a backend."""

    @property
    def sweeps(self) -> bool:
        """A batch of passages, to be laid beside other sizes."""
        return self.batch > 1 and self.tokens is None

    def wants(self, bench: Bench) -> float:
        if self.obstacle(bench):
            return 0.0
        block = self._block_seconds(bench)
        if not block:
            return self.budget
        warm_up = 3 * block / self._count(bench)
        planned = warm_up + self.blocks * (block + len(bench.targets) * self.rest)
        return max(self._warm(bench), min(self.budget, planned))

    def least(self, bench: Bench) -> float:
        """One block."""
        return 0.0 if self.obstacle(bench) else self._block_seconds(bench)

    def _block_seconds(self, bench: Bench) -> float:
        """One block of every target, by the time that a text took so far; 0 if that is not known."""
        return self._count(bench) * self._request_seconds(bench)

    def _count(self, bench: Bench) -> int:
        """Requests per backend and block.

        Of clients at once, as many as the budget has room for: of a short burst most is its beginning and its
        end, where fewer of them are under way.
        """
        least, each = self.per_block * self.clients, self._request_seconds(bench)
        if self.clients == 1 or not each:
            return least
        return max(least, self.clients * int(self.budget / (self.blocks * each * self.clients)))

    def _request_seconds(self, bench: Bench) -> float:
        return self.batch * bench.text_seconds(self.batch, self.tokens)

    def _warm(self, bench: Bench) -> float:
        """One warm-up request and one ABBA pattern."""
        return self._request_seconds(bench) + FEWEST_BLOCKS * self._block_seconds(bench)

    def obstacle(self, bench: Bench) -> str:
        if self.tokens is None:
            return ""
        if bench.count_tokens is None:
            return "the model has no tokenizer file to count tokens with"
        if bench.max_tokens is not None and self.tokens > bench.max_tokens:
            return f"a backend takes {bench.max_tokens} tokens at most"
        return ""

    def longest(self, bench: Bench) -> int:
        return self.tokens or bench.longest(self.batch)

    def measure(self, bench: Bench) -> Rows:
        tallies = [_Turns(target) for target in bench.targets]
        of = {id(turns.target): turns for turns in tallies}
        request = 0
        expected, count = self._block_seconds(bench), self._count(bench)
        cold = bench.allowed < self._warm(bench)
        single = bench.allowed < FEWEST_BLOCKS * expected
        blocks = 1 if single else FEWEST_BLOCKS if cold else self.blocks
        cut = cold
        with bench.sampling() as window:
            begun = bench.pace.now()
            for target in () if cold else bench.in_random_order():
                self._warm_up(bench, of[id(target)])
            started = bench.pace.now()
            for block, turn in enumerate(bench.patterns(blocks)):
                used = bench.pace.now() - started
                if block >= FEWEST_BLOCKS and block % 2 == 0:  # whole patterns only
                    pattern = FEWEST_BLOCKS * used / block
                    cut = (
                        bench.pace.now() - begun + pattern > bench.allowed or started + used > bench.deadline
                    )
                    if cut or used > self.budget:
                        break
                bench.report(max(block / blocks, min(1.0, used / self.budget)))
                batches = [self._texts(bench, request + offset) for offset in range(count)]
                tokens = [tokens_of(batch, bench.count_tokens) for batch in batches]
                request += count
                for target in turn:
                    if self.rest:
                        bench.pace.sleep(self.rest)
                    self._block(bench, of[id(target)], batches, tokens)
        counted = bench.count_tokens is not None
        rows = tuple(
            measurement(
                turns.target, "closed loop", self.name, self.batch, turns.tally, window,
                seconds=turns.busy, counted=counted, figures=self._figures(turns),
                series={"warm_up_ms": tuple(turns.warm_up_ms)},
            )
            for turns in tallies
        )  # fmt: skip
        notes = list(error_notes(self.name, [(turns.target, turns.tally) for turns in tallies]))
        notes += [note for turns in tallies if (note := self._slow_warm_up(turns))]
        unsteady = [turns for turns in tallies if not turns.steady and turns.tally.latencies_ms]
        if unsteady and not cold:
            notes.append(self._unsteady(unsteady))
        if cut:
            done = len(tallies[0].times)
            what = f"{done} of {self.blocks} blocks" + (", not warmed up" if cold else "")
            notes.append(shortened(self.name, what))
        return Rows(rows, compare_turns(self.name, self._metric, tallies, bench), tuple(notes))

    @property
    def _metric(self) -> Literal["latency", "throughput"]:
        return "latency" if self.batch == 1 and self.clients == 1 else "throughput"

    def _texts(self, bench: Bench, number: int) -> list[str]:
        if self.tokens is not None and bench.count_tokens is not None:
            stratum = bench.workload.of_length(self.tokens, bench.count_tokens)
            return [stratum[(number * self.batch + offset) % len(stratum)] for offset in range(self.batch)]
        if self.batch == 1:
            return [bench.workload.query(number)]
        return bench.workload.batch(self.batch, number)

    def _warm_up(self, bench: Bench, turns: _Turns) -> None:
        """Requests until the backend is steady: engines capture, compile or reload at a new shape."""
        started, last = bench.pace.now(), turns.warm_up_ms
        for number in range(_WARM_UP):
            bench.cancel.raise_if_cancelled()
            answer = send(turns.target, self._texts(bench, -1 - number), bench.pace.now)
            if not answer.error:
                last.append(answer.seconds * 1e3)
            turns.steady = len(last) >= 3 and max(last[-3:]) <= _STEADY * min(last[-3:])
            if turns.steady or bench.pace.now() - started > _WARM_UP_SHARE * self.budget:
                return

    def _block(
        self, bench: Bench, turns: _Turns, batches: Sequence[list[str]], tokens: Sequence[int]
    ) -> None:
        answers: list[Answer | None] = [None] * len(batches)

        def client(number: int) -> None:
            for place in range(number, len(batches), self.clients):
                if bench.cancel.cancelled:
                    return
                answers[place] = send(turns.target, batches[place], bench.pace.now)

        started = bench.pace.now()
        together(self.clients, client)
        wall = bench.pace.now() - started
        bench.cancel.raise_if_cancelled()
        given = [answer for answer in answers if answer is not None]
        for answer, batch, count in zip(given, batches, tokens, strict=True):
            turns.tally.add(answer, len(batch), count)
        if any(answer.error for answer in given):
            turns.times.append(math.nan)  # keeps the pairing; left out of ratios
            turns.busy += sum(answer.seconds for answer in given if not answer.error) / self.clients
            return
        # The time between two requests is the lab's own: it counts only where clients overlap.
        busy = wall if self.clients > 1 else sum(answer.seconds for answer in given)
        turns.busy += busy
        # The median request for latency: a stall belongs in p99 and would drown a block's mean.
        seconds = [answer.seconds for answer in given]
        turns.times.append(statistics.median(seconds) if self._metric == "latency" else busy / len(given))

    def _figures(self, turns: _Turns) -> tuple[Figure, ...]:
        rates = [self.batch / time for time in turns.times if time > 0]
        rate = mean_interval(rates) if self._metric == "throughput" else None
        return (
            *([Figure("texts_per_s", rate.estimate, "per_second", rate.low, rate.high)] if rate else []),
            *_warm_up_figures(turns),
        )

    def _unsteady(self, those: Sequence[_Turns]) -> str:
        sent = " and ".join(f"{turns.target.name} ({len(turns.warm_up_ms)} sent)" for turns in those)
        return f"{self.name}: warm-up ended before requests were steady, of {sent}"

    def _slow_warm_up(self, turns: _Turns) -> str:
        found = _warm_up_excess(turns)
        if found is None:
            return ""
        excess, requests = found
        if excess < _SLOW_WARM_UP * statistics.median(turns.tally.latencies_ms):
            return ""
        return (
            f"{turns.target.name}, {self.name}: slow warm-up, the first {requests} requests took "
            f"{excess:,.0f} ms longer than steady ones"
        )


@dataclass(slots=True)
class _Turns:
    """One backend's turns under one shape."""

    target: Target
    tally: Tally = field(default_factory=Tally)
    times: list[float] = field(default_factory=list)
    """Seconds per request, one entry per block; NaN for a block with an error."""
    warm_up_ms: list[float] = field(default_factory=list)
    steady: bool = False
    """It was seen to be warm."""
    busy: float = 0.0


def together(clients: int, work: Callable[[int], None]) -> None:
    """Run `work(0)` … `work(clients - 1)` at the same time; a single one on this thread.

    Raises whatever a client raised first.
    """
    if clients == 1:
        work(0)
        return
    raised: list[BaseException] = []

    def client(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # handed on below
            raised.append(error)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def _warm_up_figures(turns: _Turns) -> tuple[Figure, Figure]:
    found = _warm_up_excess(turns)
    if found is None:
        why = "no good request" if turns.warm_up_ms else "not warmed up"
        return Figure("warm_up_requests", None, note=why), Figure("warm_up_ms", None, "ms", note=why)
    excess, requests = found
    sent = f"of {len(turns.warm_up_ms)} sent to warm up"
    return (
        Figure("warm_up_requests", float(requests), note=sent if turns.steady else f"{sent}, not yet steady"),
        Figure("warm_up_ms", excess, "ms", note="beyond what as many steady requests take"),
    )


def _warm_up_excess(turns: _Turns) -> tuple[float, int] | None:
    """Milliseconds that the warm-up took beyond steady requests, and how many requests were slow.

    None where there was no warm-up, or nothing was answered.
    """
    if not turns.tally.latencies_ms or not turns.warm_up_ms:
        return None
    steady = statistics.median(turns.tally.latencies_ms)
    noise = percentile(turns.tally.latencies_ms, 0.95) or 0.0
    slow = [latency for latency in turns.warm_up_ms if latency > max(noise, _STEADY * steady)]
    return sum(latency - steady for latency in slow), len(slow)


def compare_turns(
    shape: str, metric: Literal["latency", "throughput"], turns: Sequence[_Turns], bench: Bench
) -> tuple[Comparison, ...]:
    """Native against Ollama where both are there, else the first against the second."""
    if len(turns) != 2 or bench.faulty:
        return ()
    baseline, candidate = sorted(turns, key=lambda one: one.target.name != "ollama")
    pairs = [
        (a, b) for a, b in zip(baseline.times, candidate.times, strict=True) if a > 0 and b > 0
    ]  # a block with an error is NaN and compares false
    if not pairs:
        return ()
    ratio = ratio_interval([a for a, _ in pairs], [b for _, b in pairs])
    return (Comparison(shape, metric, baseline.target.name, candidate.target.name, ratio, verdict(ratio)),)
