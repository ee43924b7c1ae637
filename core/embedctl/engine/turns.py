"""Measuring backends that do not fit into memory at once: each alone, and what was loaded before put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.records import BackendName, Run

NOTE: Final = (
    "measured one after the other, since they do not fit into memory at once: blocks could not be "
    "interleaved, a drift of the machine would count as a difference, and so no ratio is given"
)
_ENDED: Final = "turns_ended"
"""In a run's environment: the backends whose turn is over, with the seconds that it took."""
_WORKLOADS: Final = "turns_workloads"
"""In a run's environment: the texts of each backend."""
UNLIKE: Final = "its backends were measured on different texts, so that their rows are not to be compared"
AloneRun = Callable[[BackendName, Callable[[Run], Run], Run | None, Run | None], Run]
"""Measures one backend: its name, what keeps the run as it grows, what it has of an earlier attempt, and what
another one's turn has given, whose texts it must use."""


def was_in_turns(run: Run) -> bool:
    return NOTE in run.notes


def in_turns(
    names: Sequence[BackendName],
    lifecycle: Lifecycle,
    job: Job,
    run_alone: AloneRun,
    keep: Callable[[Run], Run],
    resumed: Run | None,
) -> Run:
    """One run out of those of each backend alone, without comparisons; kept as it grows, not at its end.

    Requests for a backend that had to go wait meanwhile.

    Args:
        run_alone: Loads what it is told to, measures it, and leaves it loaded.
        keep: Stores the run so far and returns it with its id.
        resumed: The same, broken off earlier: what each backend has of it is not measured again.

    Raises:
        BackendError: A backend is in use, or does not fit even alone.
        UsageError: `resumed` was measured on something else.
        Cancelled: The job was cancelled.
    """
    turns: dict[BackendName, Run] = {}
    if resumed is not None:
        turns = {name: _part(resumed, name) for name in names if _has(resumed, name)}
    id_ = resumed.id if resumed is not None else 0

    def keep_part(name: BackendName, part: Run) -> Run:
        nonlocal id_
        turns[name] = part
        id_ = keep(merged(names, [turns[one] for one in names if one in turns], id_)).id
        return part

    for name in names:
        if name in turns and turns[name].state == "done":
            continue
        with ExitStack() as away:
            for other in names:
                if other != name and lifecycle.ready(other):
                    away.enter_context(lifecycle.away(other, job))
            before = lifecycle.ready(name)
            others = [turns[one] for one in names if one != name and one in turns]
            beside = others[0] if others else None
            try:
                turns[name] = run_alone(name, partial(keep_part, name), turns.get(name), beside)
            finally:
                if not before and lifecycle.ready(name):  # it makes room for the next, or for those away
                    lifecycle.unload(name)
    return replace(merged(names, [turns[name] for name in names], id_), state="done")


def merged(names: Sequence[BackendName], runs: Sequence[Run], id_: int) -> Run:
    """Runs of one backend each, as far as there are, as one run of all; unfinished.

    Where it runs is told by the latest of them.
    """
    first, latest = runs[0], runs[-1]
    ended = {str(run.backends[0]): run.seconds for run in runs if run.state == "done"}
    workloads = {str(run.backends[0]): run.workload for run in runs}
    alike = len(set(workloads.values())) == 1
    return replace(
        first,
        id=id_,
        seconds=sum(run.seconds for run in runs),
        backends=tuple(names),
        measurements=tuple(row for run in runs for row in run.measurements),
        comparisons=(),
        fingerprints=tuple(mark for run in runs for mark in run.fingerprints),
        workload=first.workload if alike else "; ".join(f"{one}: {it}" for one, it in workloads.items()),
        notes=(
            NOTE,
            *(() if alike else (UNLIKE,)),
            *dict.fromkeys(note for run in runs for note in run.notes),
        ),
        state="unfinished",
        environment={**latest.environment, _ENDED: ended, _WORKLOADS: workloads},
    )


def _has(run: Run, name: BackendName) -> bool:
    return any(mark.backend == name for mark in run.fingerprints)


def _part(run: Run, name: BackendName) -> Run:
    """What one backend has of a run of all."""
    ended: dict[BackendName, float] = dict(run.environment.get(_ENDED) or {})
    workloads: dict[BackendName, str] = dict(run.environment.get(_WORKLOADS) or {})
    return replace(
        run,
        id=0,
        seconds=ended.get(name, run.seconds - sum(ended.values())),
        backends=(name,),
        measurements=tuple(row for row in run.measurements if row.backend == name),
        fingerprints=tuple(mark for mark in run.fingerprints if mark.backend == name),
        workload=workloads.get(name, run.workload),
        notes=tuple(note for note in run.notes if note not in (NOTE, UNLIKE)),
        state="done" if name in ended else "unfinished",
    )
