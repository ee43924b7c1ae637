"""Shorter texts for the batches, where passages would take more time than there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from embedctl.lab.closed_loop import FEWEST_BLOCKS
from embedctl.lab.stages import Bench
from embedctl.lab.targets import send
from embedctl.lab.workloads import Workload

_REQUESTS: Final = 1 + FEWEST_BLOCKS
"""Of each size and backend, for a warm shape and an interval's first pattern."""
_PROBE: Final = 8
_HOPELESS: Final = 30.0
"""Times too long by the questions so far: no batching makes up for that, and the probe would cost time."""


def lighter(bench: Bench, sizes: Sequence[int], left: float) -> Workload | None:
    """A workload whose batches are of questions, if passages in batches of `sizes` do not fit into `left`.

    A few slow requests of long texts would decide nothing: rows without an interval, and the large sizes left
    out. Where the questions so far leave it open, one batch of passages is sent to each backend and timed:
    what takes one text long may do many well.
    """
    texts = _REQUESTS * sum(sizes)
    guess = texts * bench.text_seconds(_PROBE)
    if guess <= left:
        return None
    if guess > _HOPELESS * left:
        return bench.workload.of_questions()
    batch = bench.workload.batch(_PROBE, 0)
    seconds = sum(send(target, batch, bench.pace.now).seconds for target in bench.targets)
    return bench.workload.of_questions() if texts * seconds / _PROBE > left - seconds else None
