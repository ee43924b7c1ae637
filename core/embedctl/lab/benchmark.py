"""A benchmark: the stages of a preset, one after the other, kept as each one ends."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Final

from embedctl.format import format_bytes
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.cold_start import first_answer
from embedctl.lab.energy import best_batch_note
from embedctl.lab.gate import gate
from embedctl.lab.lighter import lighter
from embedctl.lab.overhead import overhead_note
from embedctl.lab.plan import allowed
from embedctl.lab.presets import preset_of
from embedctl.lab.reading import Reading, withheld
from embedctl.lab.resuming import (
    MEASURING_LEFT,
    changed_conditions,
    failed_gate,
    gate_note,
    measuring_time,
    require_same,
)
from embedctl.lab.stages import Bench, Rows, Stage
from embedctl.lab.targets import Pace, RealPace, Target
from embedctl.lab.tokens import TokenCounter
from embedctl.lab.window import SampleWindow, Sampling
from embedctl.lab.workloads import Workload, built_in
from embedctl.progress import CancelToken, Progress
from embedctl.records import Fingerprint, Machine, Run

_GATE_TEXTS = 8
_KEEPING: Final = 0.04
"""Of the time, held back where it is shared out: working out rows and storing them takes time as well."""
_TEXT_LIMIT: Final = "text_limit"
"""In a run's environment: the most tokens that a text may have; none if nobody said."""
LOW_IS_JOINT: Final = "the least memory left is the machine's with all backends loaded, not each one's own"
OF_QUESTIONS: Final = "batches are of questions: passages would have taken more time than there is"


def run_benchmark(
    targets: Sequence[Target],
    *,
    preset: str,
    title: str = "",
    count_tokens: TokenCounter | None,
    machine: Machine | None,
    progress: Progress,
    cancel: CancelToken,
    sampling: Sampling = lambda: nullcontext(SampleWindow()),
    environment: Mapping[str, Any] | None = None,
    keep: Callable[[Run], Run] = lambda run: run,
    resumed: Run | None = None,
    workload: Workload | None = None,
    seed: int = 0,
    pace: Pace | None = None,
    limit: float | None = None,
    begun: float | None = None,
    absent: Sequence[str] = (),
    max_tokens: int | None = None,
    beside: Run | None = None,
) -> Run:
    """Measure the targets (one or two, loaded) and return the run.

    Args:
        limit: Seconds for the whole, in place of the preset's; what takes longer is shortened in proportion.
        absent: Notes on backends that were to be measured and are not there.
        begun: When the time began to count, by `pace.now()`: before the targets were loaded. Now if None.
        keep: Stores the run and returns it with its id. Called before the first stage and after each one,
            with whole stages only, in state `unfinished`; and at the end.
        resumed: A run that ended early: its finished stages are kept and the others measured.
        max_tokens: The least length limit of backends that are measured apart and laid beside these.
        beside: What such a backend's turn has given: these get the same texts, whatever the time.

    Raises:
        UsageError: There is no such preset, or `resumed` was measured on something else.
        Cancelled: `cancel` was set; what `keep` got is all there is.
    """
    chosen = preset_of(preset)
    pace = pace or RealPace(cancel)
    begun = pace.now() if begun is None else begun
    fingerprints = tuple(target.fingerprint() for target in targets)
    whole = workload or built_in()
    text_limit = _text_limit(_least_limit(fingerprints, max_tokens), beside, resumed)
    fitting, left_out = _that_fit(whole, text_limit, count_tokens)
    of_questions = beside is not None and OF_QUESTIONS in beside.notes
    if of_questions or (resumed is not None and resumed.workload == fitting.of_questions().label):
        fitting = fitting.of_questions()
    run = Run(
        id=0,
        at=pace.wall(),
        preset=preset,
        seconds=0.0,
        backends=tuple(target.name for target in targets),
        measurements=(),
        comparisons=(),
        fingerprints=fingerprints,
        workload=fitting.label,
        state="unfinished",
        notes=(
            *absent, *left_out, *_machine_notes(machine), *_memory_notes(environment or {}, targets),
            *((OF_QUESTIONS,) if of_questions else ()),
        ),
        title=title,
        seed=seed,
        environment={**(environment or {}), _TEXT_LIMIT: text_limit},
    )  # fmt: skip
    if resumed is not None:
        require_same(resumed, run)
        notes = changed_conditions(resumed.environment, run.environment)
        run = _noted(replace(resumed, state="unfinished", environment=run.environment), *notes)
    bench = Bench(
        targets, fitting, count_tokens, _least_limit(fingerprints), random.Random(), pace, cancel, sampling,
        done=list(run.measurements),
    )  # fmt: skip
    if not run.measurements:  # the gate's requests would be before it
        bench.first = {
            target.name: first_answer(target, bench) for target in targets if target.first_start is not None
        }
    faults = {target.name: found for target in targets if (found := _gate(target, fitting))}
    run = _noted(run, *(gate_note(name, fault) for name, fault in faults.items()))
    bench.faulty = failed_gate(run)
    if bench.faulty:  # verdicts of the stages before a resume as well: they are of the same backend
        run = replace(run, comparisons=())
    run = keep(_noted(run, overhead_note(pace)))
    limit = limit or chosen.limit
    bench.deadline = pace.now() + measuring_time(resumed, limit, pace.now() - begun)
    measuring = _Measuring(
        bench, Reading(bench), chosen.stages, limit, begun, progress, keep, run,
        texts_are_fixed=beside is not None,
    )  # fmt: skip
    return measuring.all()


@dataclass(slots=True)
class _Measuring:
    """One pass over the stages."""

    bench: Bench
    reading: Reading
    stages: Sequence[Stage]
    limit: float
    begun: float
    progress: Progress
    keep: Callable[[Run], Run]
    run: Run
    texts_are_fixed: bool = False

    def all(self) -> Run:
        """Measure what is not there yet; returns the run as kept at the end."""
        before = self.run.seconds
        for number, stage in enumerate(self.stages):
            if self._is_done(stage):
                continue
            self.bench.cancel.raise_if_cancelled()
            if isinstance(stage, ClosedLoop) and stage.sweeps:
                self._lighten()
            why = stage.obstacle(self.bench) or self._too_long(stage)
            told = f"{stage.name} left out: "
            self.run = replace(self.run, notes=tuple(n for n in self.run.notes if not n.startswith(told)))
            if why:
                self.run = _noted(self.run, told + why)
                continue
            coming = [one for one in self.stages[number:] if not self._is_done(one)]
            asking = [self.reading.seconds(one) for one in coming]
            wants = [one.wants(self.bench) + more for one, more in zip(coming, asking, strict=True)]
            leasts = [one.least(self.bench) + more for one, more in zip(coming, asking, strict=True)]
            left = self.bench.deadline - self.bench.pace.now() - _KEEPING * self.limit
            whole = allowed(wants, leasts, max(0.0, left))
            self.bench.allowed = max(0.0, whole - asking[0])
            self.bench.report = self._reporter(stage, number, min(wants[0], whole), sum(wants[1:]))
            self.bench.report(0.0)
            self.bench.order = random.Random(f"{self.run.seed}:{stage.name}")  # an order, no secret
            with old_objects_left_alone():
                rows = stage.measure(self.bench)
            rows = withheld(rows, self.reading.unread(stage))  # after it: asked before, it would warm up
            self._take(rows, before + self.bench.pace.now() - self.begun)
        notes = [note for target in self.bench.targets if (note := best_batch_note(self.bench, target))]
        return self.keep(replace(_noted(self.run, *notes), state="done"))

    def _lighten(self) -> None:
        """Before the first of the batches: all of them must be of the same texts."""
        sweep = [one for one in self.stages if isinstance(one, ClosedLoop) and one.sweeps]
        if self.texts_are_fixed or any(self._is_done(one) for one in sweep) or OF_QUESTIONS in self.run.notes:
            return
        left = self.bench.deadline - self.bench.pace.now()
        light = lighter(self.bench, [one.batch for one in sweep], left)
        if light is not None:
            self.bench.workload = light
            self.run = _noted(replace(self.run, workload=light.label), OF_QUESTIONS)

    def _take(self, rows: Rows, seconds: float) -> None:
        self.bench.done += rows.measurements
        run = replace(
            self.run,
            measurements=(*self.run.measurements, *rows.measurements),
            comparisons=(*self.run.comparisons, *rows.comparisons),
            seconds=seconds,
            environment={
                **self.run.environment,
                MEASURING_LEFT: max(0.0, self.bench.deadline - self.bench.pace.now()),
            },
        )
        self.run = self.keep(_noted(run, *rows.notes))

    def _is_done(self, stage: Stage) -> bool:
        return all(self.bench.row(target.name, stage.name) for target in self.bench.targets)

    def _too_long(self, stage: Stage) -> str:
        left = self.bench.deadline - self.bench.pace.now()
        least = stage.least(self.bench) + self.reading.seconds(stage)
        if least <= left:
            return ""
        return f"it takes about {least:,.1f} s, and {max(0.0, left):,.1f} s of {self.limit:,.0f} s are left"

    def _reporter(self, stage: Stage, number: int, planned: float, later: float) -> Callable[[float], None]:
        """Tells the seconds that have passed, of those and the ones that are still to come."""
        step = f"{stage.name} ({number + 1} of {len(self.stages)})"

        def report(share: float) -> None:
            now = self.bench.pace.now()
            still = min(planned * max(0.0, 1.0 - share) + later, max(0.0, self.bench.deadline - now))
            self.progress(step, done=now - self.begun, total=now - self.begun + still, unit="seconds")

        return report


@contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Have the garbage collector look at new objects only.

    A look at all of a console's objects stops every thread for 60 to 120 ms, now and then: longer than a
    batch takes on a fast GPU, and no doing of the backend's. A console or a service has done so for good.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _noted(run: Run, *notes: str) -> Run:
    return replace(run, notes=tuple(dict.fromkeys((*run.notes, *notes))))


def _gate(target: Target, workload: Workload) -> str:
    return gate(target, [workload.query(number) for number in range(_GATE_TEXTS)])


def _least_limit(fingerprints: Sequence[Fingerprint], *others: int | None) -> int | None:
    limits = (*(mark.max_tokens for mark in fingerprints), *others)
    return min((limit for limit in limits if limit is not None), default=None)


def _text_limit(limit: int | None, beside: Run | None, resumed: Run | None) -> int | None:
    """The most tokens that a text may have: a run that is gone on with keeps its own, of backends not asked
    again too."""
    if resumed is not None and _TEXT_LIMIT in resumed.environment:
        kept: int | None = resumed.environment[_TEXT_LIMIT]
        return kept
    other = beside.environment.get(_TEXT_LIMIT) if beside is not None else None
    return _least_limit((), limit, other)


def _that_fit(
    workload: Workload, limit: int | None, count_tokens: TokenCounter | None
) -> tuple[Workload, tuple[str, ...]]:
    """The texts that no target has to cut, and a note on the others.

    What happens to a text over the limit differs between backends (cut, or refused, found and sent again),
    and would be measured instead of embedding.
    """
    if limit is None or count_tokens is None:
        return workload, ()
    fitting = workload.within(limit, count_tokens)
    out = len(workload.queries) + len(workload.passages) - len(fitting.queries) - len(fitting.passages)
    return fitting, (f"texts over {limit} tokens, left out: {out}",) if out else ()


def _memory_notes(environment: Mapping[str, Any], targets: Sequence[Target]) -> tuple[str, ...]:
    own = environment.get("console_rss_bytes")
    return (
        *((f"embedctl itself held {format_bytes(own)} of memory, apart from its backends",) if own else ()),
        *((LOW_IS_JOINT,) if len(targets) > 1 else ()),
    )


def _machine_notes(machine: Machine | None) -> tuple[str, ...]:
    if machine is None:
        return ()
    gpu = machine.gpu
    what = gpu.name if gpu else f"no GPU ({machine.gpu_absence or 'reason unknown'})"
    simulated = ("the GPU is simulated; times are this machine's CPU",) if machine.simulated else ()
    return (f"{machine.hostname}: {what}, driver {machine.driver or 'n/a'}", *simulated)
