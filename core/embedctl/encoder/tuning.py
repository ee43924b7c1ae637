"""The token budget: the smallest batch that is as fast as any, within the memory that is free.

A budget too small leaves the device waiting for launches; one too large makes a single query wait longer
behind a bulk batch, takes memory, and on a CPU falls out of the cache. Which is which is measured on the
loaded model and remembered for the next load.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from embedctl.encoder.architecture import Architecture
from embedctl.encoder.canary import TEXTS
from embedctl.files import whole_file

GPU_DEFAULT, CPU_DEFAULT = 8192, 2048
GPU_CANDIDATES = (2048, 4096, 8192, 16_384, 32_768)
CPU_CANDIDATES = (512, 1024, 2048, 4096, 8192)
LEAST_BUDGET = 256
"""However little memory is free: a batch that does not fit is halved when it is met."""
ROUNDS = 3
_AS_GOOD = 0.98
"""Of the best rate: what a budget must reach to be taken for as fast."""
_SECONDS = 0.5
"""Of work in one trial, about, and at least two batches of the largest budget."""
_MOST_TOKENS = 2**19
_SHARE = 0.5
"""Of the free memory: what one batch may take. The rest is for the next batch, and for what is miscounted."""
_GIB = 2**30

Measure = Callable[[int, list[str]], float]
"""Seconds that these texts take in batches of so many tokens."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured, and what it says."""

    token_budget: int
    tokens_per_s: dict[int, float]
    """Median rate of every budget that was tried."""


def tune(
    measure: Measure,
    candidates: Sequence[int],
    *,
    count: Callable[[Sequence[str]], int],
    cancelled: Callable[[], None] = lambda: None,
) -> Tuned:
    """Measure the candidates in turns, several times over, and take the smallest that is as fast as any.

    Args:
        measure: Runs some texts; a budget for which it raises MemoryError is left out, with all larger ones.
        candidates: Budgets in tokens, ascending.
        count: Tokens of some texts together.
        cancelled: Called between trials; raises to end them.

    Raises:
        MemoryError: Not even the first candidate fits.
    """
    probe = sample(4 * candidates[0], count)
    measure(candidates[0], probe)  # kernels are compiled, libraries opened
    rate = count(probe) / measure(candidates[0], probe)
    texts = sample(min(_MOST_TOKENS, max(2 * candidates[-1], int(_SECONDS * rate))), count)
    tokens = count(texts)
    rates: dict[int, list[float]] = {budget: [] for budget in candidates}
    for turn in range(ROUNDS):
        for budget in sorted(rates, reverse=turn % 2 == 1):  # what slows down over time hits all alike
            if budget not in rates:
                continue
            cancelled()
            try:
                rates[budget].append(tokens / measure(budget, texts))
            except MemoryError:
                rates = {smaller: got for smaller, got in rates.items() if smaller < budget}
                if not rates:
                    raise
    medians = {budget: statistics.median(got) for budget, got in rates.items()}
    best = max(medians.values())
    return Tuned(min(b for b, value in medians.items() if value >= _AS_GOOD * best), medians)


def sample(tokens: int, count: Callable[[Sequence[str]], int]) -> list[str]:
    """Texts of at least so many tokens together, with the lengths of passages and always the same."""
    words = " ".join(TEXTS).split()
    chooser = random.Random(5)  # a workload, no secret
    per_word = (count(words) - len(words) * count([""])) / len(words)
    texts: list[str] = []
    left = float(tokens)
    while left > 0:
        length = max(4, int(chooser.lognormvariate(5.15, 0.62) / per_word))
        texts.append(" ".join(chooser.choices(words, k=length)))
        left -= count(texts[-1:])
    return texts


# Memory -------------------------------------------------------------------------------------------------


def affordable(model: Architecture, wanted: int, *, floor: int | None = None) -> tuple[int, str | None]:
    """The budget that the free memory allows, at most `wanted`, and a note if it is less.

    Args:
        floor: Bytes of host memory to leave free where the device works in it (a CPU, a GPU that shares the
            pool); None for an eighth of it, at most 8 GiB.
    """
    free, source = free_bytes(model.device, floor)
    fits = int(free * _SHARE / bytes_per_token(model))
    if fits >= wanted:
        return wanted, None
    budget = max(min(LEAST_BUDGET, wanted), fits)
    return (
        budget,
        f"batches have {budget} tokens instead of {wanted}: {free / _GIB:.1f} GiB are free ({source})",
    )


def bytes_per_token(model: Architecture) -> int:
    """What one token takes while it passes a layer: input, residual, queries, keys, values, output and their
    sums (about eight vectors of the hidden width), and the two of the feed-forward."""
    inner = max((layer.up.weight.shape[0] for layer in model.layers), default=model.width)
    return (8 * model.width + 2 * int(inner)) * model.dtype.itemsize


def free_bytes(device: torch.device, floor: int | None = None) -> tuple[int, str]:
    """Memory that batches may take on `device`, and where the figure is from.

    On a GPU that shares the pool the driver's figure leaves out what the kernel could reclaim
    (unsloth#10704), and an allocation beyond the pool hangs the machine (pytorch#174358): there it is
    MemAvailable less a floor.
    """
    if device.type == "cuda" and not torch.cuda.get_device_properties(device).is_integrated:
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached, "the driver's figure"
    memory = psutil.virtual_memory()
    kept = min(8 * _GIB, memory.total // 8) if floor is None else floor
    return max(0, memory.available - kept), f"available in the pool, less a floor of {kept / _GIB:.1f} GiB"


# What is remembered --------------------------------------------------------------------------------------


def key_of(folder: str, dtype: torch.dtype, device_name: str) -> str:
    """What a budget was measured for: another device, model, dtype or torch has to be measured anew."""
    name = str(dtype).removeprefix("torch.")
    return " | ".join((device_name, str(Path(folder).resolve()), name, f"torch {torch.__version__}"))


def recall(file: Path, key: str) -> int | None:
    """The budget remembered for `key`; None if there is none, or the file cannot be read."""
    entry = _read(file).get(key)
    budget = entry.get("token_budget") if isinstance(entry, dict) else None
    return budget if isinstance(budget, int) and budget > 0 else None


def remember(file: Path, key: str, tuned: Tuned) -> None:
    """Keep what was measured for `key` beside what is there.

    Raises:
        StoreError: The file cannot be written.
    """
    entries = _read(file)
    entries[key] = {
        "token_budget": tuned.token_budget,
        "tokens_per_s": {str(budget): round(rate) for budget, rate in tuned.tokens_per_s.items()},
        "measured_at": round(time.time()),
    }
    with whole_file(file) as part:
        part.write_text(json.dumps(entries, indent=2), encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}
