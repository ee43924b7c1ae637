"""An open loop: requests arrive when they arrive, whether or not the backend keeps up.

Latency runs from the moment at which a request was meant to be sent. A backend that stalls holds up all
requests that were due meanwhile, and each of them shows it; a loop that waits for answers would send one
request into the stall and not notice the others (coordinated omission). [wrk2; Schroeder et al., NSDI'06]
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from embedctl.lab.closed_loop import together
from embedctl.lab.load_verdict import LoadBlock, compare_loads
from embedctl.lab.stages import Bench, Rows, error_notes, measurement, shortened
from embedctl.lab.statistics import percentile, percentile_note
from embedctl.lab.targets import Answer, Pace, Tally, Target, send, tokens_of
from embedctl.lab.window import SampleWindow
from embedctl.records import BackendName, Comparison, Figure, Interval, Measurement

CLIENTS: Final = 32
"""Requests under way at most."""
CAPACITY: Final = f"{CLIENTS} at once"
"""The shape whose throughput is taken for a backend's capacity: single texts from as many clients as a load
has. Fewer would show less than a backend that batches can do, and a load of 120 % would be none."""
_KEPT_UP: Final = 0.97
"""Of what was offered, answered in time: the backend was not at its limit."""
_DRAIN: Final = 1.0
"""How long after the last arrival requests may still be sent, as a share of the load's length."""
_SHORTEST_S: Final = 3.0
"""Of arrivals at each backend."""
_STALL: Final = 5.0
"""Median service times without an answer, while one is due, that make a stall."""
_SHORTEST_STALL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Shot:
    """One request of an open loop; seconds since the load began."""

    intended: float
    picked: float
    """When a client was free to send it."""
    sent: float
    ended: float
    error: str = ""
    query: int = 0
    """Which of the workload's questions it sent."""

    @property
    def latency(self) -> float:
        return self.ended - self.intended

    @property
    def lag(self) -> float:
        """How much later than it could have the generator itself sent it."""
        return self.sent - max(self.intended, self.picked)

    def later(self, by: float) -> Shot:
        """The same, told from a beginning that was `by` seconds earlier."""
        return replace(
            self,
            intended=self.intended + by,
            picked=self.picked + by,
            sent=self.sent + by,
            ended=self.ended + by,
        )


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Poisson arrivals of single texts at a share of each backend's own capacity."""

    share: float
    length: float
    """Seconds of arrivals."""
    goal_ms: float = 200.0
    """Answers within this count as goodput."""
    clients: int = CLIENTS
    """Where all are busy, a request waits, and its latency with it."""
    blocks: int = 6
    """The load comes in so many parts, each after all is answered; the other backend's come between them."""

    @property
    def name(self) -> str:
        return f"load {self.share:.0%}".replace("%", " %")

    def wants(self, bench: Bench) -> float:
        return len(bench.targets) * self.length * (1 + max(0.0, self.share - 1) + 0.05)

    def least(self, bench: Bench) -> float:
        return self.wants(bench) * min(1.0, _SHORTEST_S / self.length)

    def obstacle(self, bench: Bench) -> str:
        unknown = [target.name for target in bench.targets if not _capacity(bench, target)]
        return f"the capacity of {' and '.join(unknown)} was not measured" if unknown else ""

    def longest(self, bench: Bench) -> int:
        return bench.longest(1)

    def measure(self, bench: Bench) -> Rows:
        fitted = replace(self, length=self.length * min(1.0, bench.allowed / self.wants(bench)))
        rows = fitted._measured(bench)
        if fitted == self:
            return rows
        what = f"{fitted.length:.1f} s of {self.length:g} s"
        return replace(rows, notes=(*rows.notes, shortened(self.name, what)))

    def _measured(self, bench: Bench) -> Rows:
        loads = {target.name: _Load(target) for target in bench.targets}
        length = self.length / self.blocks
        for block, turn in enumerate(bench.patterns(self.blocks)):
            bench.report(block / self.blocks)
            seed = bench.order.random()
            for target in turn:
                load = loads[target.name]
                rate = self.share * _capacity(bench, target)
                arrivals = poisson(rate, length, random.Random(seed))  # the same pattern for all
                with bench.sampling() as window:
                    begun = bench.pace.now()
                    shots = fire(target, arrivals, bench, self.clients, limit=length * (1 + _DRAIN))
                    seconds = bench.pace.now() - begun
                load.add(shots, max(length, seconds), self.goal_ms, at=block * length)
                load.window = load.window.joined(window)
        notes: list[str] = []
        rows = []
        for load in loads.values():
            row, of_row = self._row(bench, load)
            rows.append(row)
            notes += of_row
        found = self._compare(bench, list(loads.values()))
        kept_up = {name for name, load in loads.items() if load.kept_up}
        if found and _chosen_by_us(found[0], kept_up):
            told = f"{self.name}: no verdict, {' and '.join(sorted(kept_up))} answered all that was offered"
            return Rows(tuple(rows), (), (*notes, told))
        return Rows(tuple(rows), found, tuple(notes))

    def _compare(self, bench: Bench, loads: Sequence[_Load]) -> tuple[Comparison, ...]:
        if len(loads) != 2 or bench.faulty:
            return ()
        a, b = sorted(loads, key=lambda load: load.target.name != "ollama")
        return compare_loads(
            self.name, self.share, (a.target.name, a.blocks), (b.target.name, b.blocks),
            capacities=(_capacity_seen(bench, a.target), _capacity_seen(bench, b.target)),
        )  # fmt: skip

    def _row(self, bench: Bench, load: _Load) -> tuple[Measurement, list[str]]:
        target, shots = load.target, load.shots
        tally = Tally()
        counts = [tokens_of([query], bench.count_tokens) for query in bench.workload.queries]
        for shot in shots:
            tally.add(Answer(shot.latency, shot.error), 1, counts[shot.query % len(counts)])
        good = [shot for shot in shots if not shot.error]
        in_time = sum(block.in_time for block in load.blocks)
        stalls = load.stalls
        note = percentile_note(len(good), 0.99)
        lag = percentile([shot.lag * 1e3 for shot in shots], 0.99)
        waited = percentile([max(0.0, shot.picked - shot.intended) * 1e3 for shot in shots], 0.99)
        service = percentile([(shot.ended - shot.sent) * 1e3 for shot in good], 0.50)
        within = sum(block.seconds for block in load.blocks)
        longest = f"longest {max(stalls) * 1e3:.0f} ms" if stalls else "" if good else "no good request"
        figures = (
            _rate("offered_per_s", len(shots) / self.length, f"{self.share:.0%} of its capacity"),
            _rate("goodput_per_s", in_time / within, f"answered within {self.goal_ms:g} ms"),
            Figure("service_p50_ms", service, "ms", note="from the moment sent"),
            Figure("lag_p99_ms", lag, "ms", note=note or "the generator's own delay"),
            Figure("waited_p99_ms", waited, "ms", note=f"for one of {self.clients} clients; in the latency"),
            Figure("stalls", float(len(stalls)) if good else None, note=longest),
            Figure("blocks", float(self.blocks)),
        )
        row = measurement(
            target, "open loop", self.name, 1, tally, load.window, seconds=within,
            counted=bench.count_tokens is not None, figures=figures,
            series={
                "intended_s": tuple(round(shot.intended, 6) for shot in good),
                "sent_s": tuple(round(shot.sent, 6) for shot in good),
            },
        )  # fmt: skip
        notes = list(error_notes(self.name, [(target, tally)]))
        if stalls:
            notes.append(
                f"{target.name}, {self.name}: stalls, {len(stalls)}× no answer for {min(stalls) * 1e3:.0f} "
                f"ms or more while requests waited, longest {max(stalls) * 1e3:.0f} ms"
            )
        return row, notes


@dataclass(slots=True)
class _Load:
    """One backend's blocks of arrivals."""

    target: Target
    shots: list[Shot] = field(default_factory=list)
    """Of all blocks, as if they had followed each other without a pause."""
    blocks: list[LoadBlock] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    window: SampleWindow = field(default_factory=SampleWindow)

    @property
    def kept_up(self) -> bool:
        return sum(block.in_time for block in self.blocks) >= _KEPT_UP * len(self.shots)

    def add(self, shots: Sequence[Shot], seconds: float, goal_ms: float, *, at: float) -> None:
        good = [shot for shot in shots if not shot.error]
        latencies = tuple(shot.latency for shot in good)
        in_time = sum(latency * 1e3 <= goal_ms for latency in latencies)
        self.blocks.append(LoadBlock(latencies, in_time, seconds))
        self.stalls += stalls_of(good)
        self.shots += [shot.later(at) for shot in shots]


def _chosen_by_us(found: Comparison, kept_up: set[BackendName]) -> bool:
    """Whether a ratio of goodput is one of the rates that were offered, and not of what the backends can do.

    Whoever is called worse, or alike, must have fallen behind; whoever is called better need not.
    """
    both = {found.baseline, found.candidate}
    worse = {"faster": {found.baseline}, "slower": {found.candidate}}.get(found.verdict, both)
    return found.metric == "goodput" and bool(worse & kept_up)


def _rate(name: str, value: float, note: str) -> Figure:
    return Figure(name, value, "per_second", note=note)


def poisson(rate: float, seconds: float, chooser: random.Random) -> tuple[float, ...]:
    """Arrival times of a Poisson process of `rate` per second, within [0, `seconds`)."""
    gaps = itertools.accumulate(chooser.expovariate(rate) for _ in itertools.count())
    return tuple(itertools.takewhile(lambda at: at < seconds, gaps))


def fire(
    target: Target, arrivals: Sequence[float], bench: Bench, clients: int, *, limit: float
) -> tuple[Shot, ...]:
    """Send a text at each arrival time, by whichever client is free; in the order of the arrivals.

    A request that is still unsent `limit` seconds after the beginning counts as failed.

    Raises:
        Cancelled: The run was cancelled.
    """
    shots: list[Shot | None] = [None] * len(arrivals)
    places = iter(range(len(arrivals)))
    lock = threading.Lock()
    pace = bench.pace
    started = pace.now()

    def client(_: int) -> None:
        while True:
            with lock:
                place = next(places, None)
            if place is None or bench.cancel.cancelled:
                return
            intended, picked = arrivals[place], pace.now() - started
            if picked > limit:
                shots[place] = Shot(intended, picked, picked, picked, "not sent in time", place)
                continue
            _sleep_until(started + intended, pace)
            bench.cancel.raise_if_cancelled()
            sent = pace.now() - started
            answer = send(target, [bench.workload.query(place)], pace.now)
            shots[place] = Shot(intended, picked, sent, sent + answer.seconds, answer.error, place)

    together(min(clients, max(1, len(arrivals))), client)
    bench.cancel.raise_if_cancelled()
    return tuple(shot for shot in shots if shot is not None)


def _sleep_until(moment: float, pace: Pace) -> None:
    left = moment - pace.now()
    if left > 0:
        pace.sleep(left)


def stalls_of(shots: Sequence[Shot]) -> list[float]:
    """Seconds of each stretch, far longer than a request, in which one was due and none was answered."""
    typical = percentile([shot.ended - shot.sent for shot in shots], 0.50)
    if typical is None:
        return []
    limit = max(_SHORTEST_STALL_S, _STALL * typical)
    found, before = [], 0.0
    for shot in sorted(shots, key=lambda shot: shot.ended):
        idle = shot.ended - max(before, shot.intended)
        if idle > limit:
            found.append(idle)
        before = shot.ended
    return found


def _capacity_seen(bench: Bench, target: Target) -> Interval:
    """The same with the interval of its blocks."""
    row = bench.row(target.name, CAPACITY)
    figure = row.figure("texts_per_s") if row is not None else None
    ends = (figure.low, figure.high) if figure is not None else (None, None)
    return Interval(_capacity(bench, target), *ends)


def _capacity(bench: Bench, target: Target) -> float:
    """Texts per second that the target managed when several clients asked at once; 0 if not measured."""
    row = bench.row(target.name, CAPACITY)
    return (row.texts_per_s or 0.0) if row is not None else 0.0
