"""A language model beside a backend: planted disturbance is found, and nothing where there is none."""

from __future__ import annotations

import math
import random
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import pytest

from embedctl.errors import BackendError, Cancelled
from embedctl.lab.coexist import Plan, Room, headline, judged, p99_gained, side_by_side, verdict_of
from embedctl.lab.open_loop import poisson
from embedctl.lab.stages import Bench
from embedctl.lab.statistics import percentile, percentile_ratio
from embedctl.lab.targets import RealPace
from embedctl.lab.window import SampleWindow
from embedctl.progress import CancelToken
from embedctl.records import Coexistence, Figure, Interval, Sample
from tests.support.lab import GIB, WORKLOAD, Scripted

PLAN = Plan(rounds=4, block_seconds=0.06)
FLOOR = 8 * GIB


class Machine:
    """A backend and a language model that may slow each other down."""

    def __init__(self, *, slowed: float = 1.0, left: float | None = 60 * GIB) -> None:
        self.slowed = slowed
        self.left = left
        self.name = "tiny:latest"
        self.simulated = False
        self.dies: str = ""
        self.generating = 0
        self._embedding = threading.Event()
        self._cancel = CancelToken()

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[None]:
        self.generating += 1
        while not stopped():
            threading.Event().wait(0.002 * (self.slowed if self._embedding.is_set() else 1.0))
            yield
            if self.dies:
                raise BackendError(self.dies)

    def run(self, *, cancel: CancelToken | None = None, fails: bool = False) -> Coexistence:
        pace = RealPace(self._cancel)
        backend = Scripted("native", pace, lambda texts: 0.001)  # type: ignore[arg-type]
        backend.fails = lambda texts: fails
        told: list[float] = []
        bench = Bench(
            [],
            WORKLOAD,
            None,
            None,
            random.Random(1),
            pace,
            cancel or CancelToken(),
            self._sampling,
            told.append,
        )
        room = Room(
            lambda sample: int(sample.values["left"]) if "left" in sample.values else None, FLOOR, "pool"
        )
        row = side_by_side(backend.target(), self, bench, PLAN, room)
        assert told == sorted(told)
        return row

    @contextmanager
    def _sampling(self) -> Iterator[SampleWindow]:
        """Open while both are at work, as the lab has it."""
        self._embedding.set()
        window = SampleWindow()
        if self.left is not None:
            window.see(Sample(0.0, {"left": self.left}, {}))
        try:
            yield window
        finally:
            self._embedding.clear()


def test_all_three_blocks_of_every_round_are_measured() -> None:
    machine = Machine()
    row = machine.run()
    assert (row.rounds, row.errors, machine.generating) == (4, 0, 8)
    assert row.least_memory == Figure("least_memory", 60.0 * GIB, "bytes", note="pool")
    assert row.latencies_alone_ms
    assert row.latencies_together_ms
    assert row.p99_alone.note.startswith("n too small")
    report = judged([row], machine, PLAN, ["a note"])
    assert (report.model, report.notes, report.verdict) == ("tiny:latest", ("a note",), row.verdict)
    assert headline(report).startswith(f"{row.verdict}: tiny:latest; beside native it keeps ")


def test_tokens_that_are_lost_are_found() -> None:
    row = Machine(slowed=6.0).run()
    assert row.tokens_kept is not None
    assert row.tokens_kept.high is not None
    assert row.tokens_kept.high < 0.8
    assert row.verdict == "disturb each other"
    assert row.reasons[0].startswith("the model keeps ")


def test_a_model_that_dies_and_a_backend_that_fails_end_it_with_their_reason() -> None:
    machine = Machine()
    machine.dies = "the model was killed"
    with pytest.raises(BackendError, match="the model was killed"):
        machine.run()
    with pytest.raises(BackendError, match="native does not embed, even alone"):
        Machine().run(fails=True)
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        Machine().run(cancel=token)


def test_a_model_that_never_begins_can_be_cancelled() -> None:
    token = CancelToken()

    class Silent(Machine):
        def pieces(self, stopped: Callable[[], bool]) -> Iterator[None]:
            token.cancel()
            while not stopped():
                threading.Event().wait(0.001)
            yield

    with pytest.raises(Cancelled):
        Silent().run(cancel=token)


GOOD = Interval(0.95, 0.9, 1.0)
FAST = Interval(1.1, 1.0, 1.3)
ROOM = Figure("least_memory", 20.0 * GIB, "bytes")


@pytest.mark.parametrize(
    ("kept", "slower", "errors", "least", "verdict", "why"),
    [
        (GOOD, FAST, 0, ROOM, "fit side by side", ""),
        (Interval(0.5, 0.45, 0.55), FAST, 0, ROOM, "disturb each other", "keeps 50% of its tokens/s"),
        (GOOD, Interval(3.0, 2.5, 3.5), 0, ROOM, "disturb each other", "p99 is 3.0× as long"),
        (Interval(0.8, 0.7, 0.9), FAST, 0, ROOM, "undecided", "keeps 70% to 90%"),
        (GOOD, Interval(1.1, None, None), 0, ROOM, "undecided", "too few texts"),
        (None, FAST, 0, ROOM, "undecided", "too few rounds"),
        (GOOD, FAST, 2, ROOM, "do not fit", "2 requests failed"),
        (GOOD, FAST, 0, Figure("x", 7.0 * GIB, "bytes"), "do not fit", "only 7.0 GiB were left"),
        (GOOD, FAST, 0, Figure("x", None, "bytes", note="no sample"), "undecided", "no sample"),
    ],
)
def test_the_verdict(
    kept: Interval | None, slower: Interval, errors: int, least: Figure, verdict: str, why: str
) -> None:
    found, reasons = verdict_of(kept, slower, errors, least, Plan(), FLOOR)
    assert found == verdict
    assert why in " ".join(reasons)


def rounds_of(seed: int, *, slower: float = 1.0, rounds: int = 6) -> list[list[float]]:
    """Texts at half of what a server of 20 ms manages, for 10 s; they wait for each other."""
    noise, found = random.Random(seed), []
    for number in range(rounds):
        free, latencies = 0.0, []
        for at in poisson(25.0, 10.0, random.Random(f"{seed // 2}:{number}")):  # as alone, so together
            free = max(free, at) + 0.02 * slower * noise.lognormvariate(0, 0.1)
            latencies.append(1e3 * (free - at))
        found.append(latencies)
    return found


def test_the_p99_gained_is_covered_although_texts_wait_for_each_other() -> None:
    pairs = zip(rounds_of(10**6, rounds=200), rounds_of(10**6 + 1, slower=1.3, rounds=200), strict=True)
    truth = math.exp(
        statistics.fmean(math.log(percentile(b, 0.99) / percentile(a, 0.99)) for a, b in pairs)  # type: ignore[operator]
    )
    missed = by_single_texts = 0
    for seed in range(60):
        alone, together = rounds_of(2 * seed), rounds_of(2 * seed + 1, slower=1.3)
        found = p99_gained(alone, together)
        assert found is not None and found.low is not None and found.high is not None
        missed += not found.low <= truth <= found.high
        single = percentile_ratio([*chain(*alone)], [*chain(*together)], 0.99)
        assert single is not None and single.low is not None and single.high is not None
        by_single_texts += not single.low <= truth <= single.high
    assert missed <= 7
    assert by_single_texts >= 10  # what it would be otherwise


def test_of_too_few_texts_or_rounds_the_p99_gained_has_no_interval() -> None:
    for alone in (rounds_of(1, rounds=2), [[1.0] * 60] * 6, [[1.0] * 400, [], [1.0] * 400]):
        found = p99_gained(alone, alone)
        assert found is not None and found.low is None and found.estimate == pytest.approx(1.0)
    assert p99_gained([[]], [[]]) is None


def test_requests_that_fail_without_the_model_are_not_its_doing() -> None:
    def judge(errors: int, alone: int) -> tuple[str, tuple[str, ...]]:
        return verdict_of(GOOD, FAST, errors, ROOM, PLAN, FLOOR, alone)

    assert judge(3, 5)[0] == "undecided" and "5 requests failed" in judge(3, 5)[1][0]
    assert judge(9, 5)[0] == "do not fit"
