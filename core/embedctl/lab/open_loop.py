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
from dataclasses import dataclass
from typing import Final

from embedctl.lab.closed_loop import together
from embedctl.lab.stages import Bench, Rows, error_notes, measurement
from embedctl.lab.statistics import percentile, percentile_note
from embedctl.lab.targets import Answer, Pace, Tally, Target, send, tokens_of
from embedctl.lab.window import SampleWindow
from embedctl.records import Figure, Measurement

CAPACITY: Final = "at once"
"""The shape whose throughput is taken for a backend's capacity: single texts from several clients."""
_DRAIN: Final = 1.0
"""How long after the last arrival requests may still be sent, as a share of the load's length."""
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

    @property
    def latency(self) -> float:
        return self.ended - self.intended

    @property
    def lag(self) -> float:
        """How much later than it could have the generator itself sent it."""
        return self.sent - max(self.intended, self.picked)


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Poisson arrivals of single texts at a share of each backend's own capacity."""

    share: float
    length: float
    """Seconds of arrivals."""
    goal_ms: float = 200.0
    """Answers within this count as goodput."""
    clients: int = 32
    """Requests under way at most; where all are busy, a request waits, and its latency with it."""

    @property
    def name(self) -> str:
        return f"load {self.share:.0%}".replace("%", " %")

    def seconds(self, targets: int) -> float:
        return targets * self.length * (1 + max(0.0, self.share - 1) + 0.05)

    def least(self, bench: Bench) -> float:
        return self.seconds(len(bench.targets))

    def obstacle(self, bench: Bench) -> str:
        unknown = [target.name for target in bench.targets if not _capacity(bench, target)]
        return f"the capacity of {' and '.join(unknown)} was not measured" if unknown else ""

    def measure(self, bench: Bench) -> Rows:
        rows: list[Measurement] = []
        notes: list[str] = []
        seed = bench.order.random()
        for number, target in enumerate(bench.in_random_order()):
            rate = self.share * _capacity(bench, target)
            arrivals = poisson(rate, self.length, random.Random(seed))  # the same pattern for all
            bench.report(number / len(bench.targets))
            with bench.sampling() as window:
                begun = bench.pace.now()
                shots = fire(target, arrivals, bench, self.clients, limit=self.length * (1 + _DRAIN))
                seconds = max(bench.pace.now() - begun, 1e-9)
            row, told = self._row(bench, target, arrivals, shots, window, seconds)
            rows.append(row)
            notes += told
        rows.sort(key=lambda row: [target.name for target in bench.targets].index(row.backend))
        return Rows(tuple(rows), notes=tuple(notes))

    def _row(
        self,
        bench: Bench,
        target: Target,
        arrivals: Sequence[float],
        shots: Sequence[Shot],
        window: SampleWindow,
        seconds: float,
    ) -> tuple[Measurement, list[str]]:
        tally = Tally()
        for place, shot in enumerate(shots):
            count = tokens_of([bench.workload.query(place)], bench.count_tokens)
            tally.add(Answer(shot.latency, shot.error), 1, count)
        good = [shot for shot in shots if not shot.error]
        in_time = sum(shot.latency * 1e3 <= self.goal_ms for shot in good)
        stalls = stalls_of(good)
        note = percentile_note(len(good), 0.99)
        lag = percentile([shot.lag * 1e3 for shot in shots], 0.99)
        waited = percentile([max(0.0, shot.picked - shot.intended) * 1e3 for shot in shots], 0.99)
        service = percentile([(shot.ended - shot.sent) * 1e3 for shot in good], 0.50)
        within = max(self.length, seconds)
        longest = f"longest {max(stalls) * 1e3:.0f} ms" if stalls else ""
        figures = (
            _rate("offered_per_s", len(arrivals) / self.length, f"{self.share:.0%} of its capacity"),
            _rate("goodput_per_s", in_time / within, f"answered within {self.goal_ms:g} ms"),
            Figure("service_p50_ms", service, "ms", note="from the moment sent"),
            Figure("lag_p99_ms", lag, "ms", note=note or "the generator's own delay"),
            Figure("waited_p99_ms", waited, "ms", note=f"for one of {self.clients} clients; in the latency"),
            Figure("stalls", float(len(stalls)), note=longest),
        )
        row = measurement(
            target, "open loop", self.name, 1, tally, window, seconds=within,
            counted=bench.count_tokens is not None, figures=figures,
            series={
                "intended_s": tuple(shot.intended for shot in good),
                "sent_s": tuple(shot.sent for shot in good),
            },
        )  # fmt: skip
        notes = list(error_notes(self.name, [(target, tally)]))
        if stalls:
            notes.append(
                f"{target.name}, {self.name}: stalls, {len(stalls)}× no answer for {min(stalls) * 1e3:.0f} "
                f"ms or more while requests waited, longest {max(stalls) * 1e3:.0f} ms"
            )
        return row, notes


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
                shots[place] = Shot(intended, picked, picked, picked, "not sent in time")
                continue
            _sleep_until(started + intended, pace)
            bench.cancel.raise_if_cancelled()
            sent = pace.now() - started
            answer = send(target, [bench.workload.query(place)], pace.now)
            shots[place] = Shot(intended, picked, sent, sent + answer.seconds, answer.error)

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


def _capacity(bench: Bench, target: Target) -> float:
    """Texts per second that the target managed when several clients asked at once; 0 if not measured."""
    row = bench.row(target.name, CAPACITY)
    return (row.texts_per_s or 0.0) if row is not None else 0.0
