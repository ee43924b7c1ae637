"""Measuring backends that do not fit into memory at once: each alone, and what was loaded before put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from embedctl.engine.jobs import Job
from embedctl.engine.lifecycle import Lifecycle
from embedctl.records import BackendName, Run

NOTE: Final = (
    "measured one after the other, since they do not fit into memory at once: blocks could not be "
    "interleaved, a drift of the machine would count as a difference, and so no ratio is given"
)


def in_turns(
    names: Sequence[BackendName], lifecycle: Lifecycle, job: Job, run_alone: Callable[[BackendName], Run]
) -> Run:
    """One run out of those of each backend alone, not yet stored; without comparisons.

    Requests for a backend that had to go wait meanwhile.

    Args:
        run_alone: Loads what it is given, measures it, and leaves it loaded.

    Raises:
        BackendError: A backend is in use, or does not fit even alone.
        Cancelled: The job was cancelled.
    """
    runs = []
    for name in names:
        with ExitStack() as away:
            for other in names:
                if other != name and lifecycle.ready(other):
                    away.enter_context(lifecycle.away(other, job))
            before = lifecycle.ready(name)
            try:
                runs.append(run_alone(name))
            finally:
                if not before and lifecycle.ready(name):  # it makes room for the next, or for those away
                    lifecycle.unload(name)
    return merged(runs)


def merged(runs: Sequence[Run]) -> Run:
    """Runs of one backend each as one run of all."""
    first = runs[0]
    return replace(
        first,
        id=0,
        seconds=sum(run.seconds for run in runs),
        backends=tuple(name for run in runs for name in run.backends),
        measurements=tuple(row for run in runs for row in run.measurements),
        comparisons=(),
        fingerprints=tuple(mark for run in runs for mark in run.fingerprints),
        notes=(NOTE, *dict.fromkeys(note for run in runs for note in run.notes)),
    )
