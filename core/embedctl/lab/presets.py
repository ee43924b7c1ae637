"""How much is measured: `quick` for a look, `standard` for a decision, `thorough` for the record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from embedctl.errors import UsageError
from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.cold_start import ColdStart
from embedctl.lab.energy import SWEEP, Bulk
from embedctl.lab.open_loop import CAPACITY, CLIENTS, OpenLoop
from embedctl.lab.soak import Soak
from embedctl.lab.stages import Stage

_SHARES: Final = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
_STANDARD_LENGTHS: Final = (16, 64, 128, 512, 2048, 8192)
_THOROUGH_LENGTHS: Final = (
    16, 64, 128, 256, 511, 512, 513, 514, 1024, 1025, 1536, 1537, 2047, 2048, 2049, 4096, 8192,
)  # fmt: skip
"""Engines are known to break at the odd ones among them."""


@dataclass(frozen=True, slots=True)
class Preset:
    stages: tuple[Stage, ...]
    limit: float
    """Seconds for the whole, loading included, of which half at least are for measuring. Where they do not
    suffice, stages are shortened, and those that cannot be are left out; the run says so."""


def _lengths(lengths: tuple[int, ...], *, blocks: int, budget: float) -> tuple[ClosedLoop, ...]:
    return tuple(
        ClosedLoop(f"{tokens} tokens", 1, per_block=4, blocks=blocks, budget=budget, tokens=tokens)
        for tokens in lengths
    )


def _sweep(*, blocks: int, budget: float, rest: float = 0.0) -> tuple[ClosedLoop, ...]:
    return tuple(
        ClosedLoop(f"batch of {size}", size, per_block=1, blocks=blocks, budget=budget, rest=rest)
        for size in SWEEP
    )


# In the order of what is missed most where the time does not suffice.
PRESETS: Final[dict[str, Preset]] = {
    "quick": Preset(
        (
            ColdStart(),
            ClosedLoop("one text", 1, per_block=10, blocks=12, budget=6.0),
            *_sweep(blocks=24, budget=4.0),
        ),
        limit=50.0,
    ),
    "standard": Preset(
        (
            ColdStart(repeats=2),
            ClosedLoop("one text", 1, per_block=20, blocks=20, budget=30.0, rest=0.05),
            *_sweep(blocks=48, budget=20.0, rest=0.05),
            ClosedLoop(CAPACITY, 1, per_block=2, blocks=20, budget=15.0, clients=CLIENTS),
            Bulk(length=2.5, blocks=8, idle=5.0),
            Soak(length=40.0),
            *(OpenLoop(share, length=9.0) for share in _SHARES),
            *_lengths(_STANDARD_LENGTHS, blocks=20, budget=10.0),
        ),
        limit=560.0,
    ),
    "thorough": Preset(
        (
            ColdStart(repeats=5),
            ColdStart(repeats=3, drop_cache=True),
            ClosedLoop("one text", 1, per_block=20, blocks=60, budget=240.0, rest=0.1),
            *_sweep(blocks=60, budget=240.0, rest=0.1),
            ClosedLoop(CAPACITY, 1, per_block=4, blocks=24, budget=120.0, clients=CLIENTS, rest=0.1),
            Bulk(length=20.0, blocks=8, idle=20.0),
            Soak(length=900.0),
            *(OpenLoop(share, length=60.0) for share in _SHARES),
            *_lengths(_THOROUGH_LENGTHS, blocks=40, budget=60.0),
        ),
        limit=3 * 3600.0,
    ),
}


def preset_of(name: str) -> Preset:
    """The preset of that name.

    Raises:
        UsageError: There is none.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(
            f"There is no preset {name!r}",
            why="it is none of those known",
            remedy=f"use {' or '.join(PRESETS)}",
        ) from None
