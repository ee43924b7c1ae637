"""The same backend twice, under every row of a preset that gets a verdict: no difference may be found."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.energy import Bulk
from embedctl.lab.presets import PRESETS
from embedctl.lab.stages import Stage
from tests.support.lab import Scripted, VirtualPace, bench_of

_RUNS = 20


def _stages(preset: str) -> list[Stage]:
    """Those with a verdict; one length stands for all. Poisson loads have simulations of their own."""
    return [
        stage
        for stage in PRESETS[preset].stages
        if (isinstance(stage, ClosedLoop) and stage.tokens in (None, 512)) or isinstance(stage, Bulk)
    ]


def _words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _verdicts(
    preset: str, seconds: Callable[[random.Random, VirtualPace, int], float]
) -> dict[str, Counter[str]]:
    """How often each row said what, over 20 runs."""
    said: dict[str, Counter[str]] = {}
    for seed in range(_RUNS):
        pace = VirtualPace()
        takes = partial(seconds, random.Random(seed), pace)
        bench = bench_of(
            *(Scripted(name, pace, takes) for name in ("native", "ollama")), pace=pace, seed=seed
        )
        bench.count_tokens = _words
        for stage in _stages(preset):
            rows = stage.measure(bench)
            bench.done += rows.measurements
            for one in rows.comparisons:
                said.setdefault(f"{stage.name}, {one.metric}", Counter())[one.verdict] += 1
    return said


def _even(noise: random.Random, pace: VirtualPace, texts: int) -> float:
    """A machine that grows warm by 15 %, and a scatter of 2 %."""
    warm = 1.15 - 0.15 * 2.0 ** (-pace.at / 20)
    return (0.010 + 0.002 * texts) * warm * noise.lognormvariate(0, 0.02)


def _busy(noise: random.Random, pace: VirtualPace, texts: int) -> float:
    """More scatter, and one request in fifty comes three times as late."""
    late = 3.0 if noise.random() < 0.02 else 1.0
    return _even(noise, pace, texts) * late * noise.lognormvariate(0, 0.02)


@pytest.mark.parametrize("preset", ["quick", "standard"])
def test_no_row_of_a_preset_tells_a_backend_from_itself(preset: str) -> None:
    said = _verdicts(preset, _even)
    assert len(said) == len(_stages(preset))
    for row, verdicts in said.items():
        assert verdicts["no difference that matters"] >= _RUNS - 1, (row, verdicts)


def test_on_a_busy_machine_nothing_is_called_different_and_single_texts_are_still_told_alike() -> None:
    said = _verdicts("quick", _busy)
    assert said["one text, latency"]["no difference that matters"] >= _RUNS - 1
    assert said["batch of 32, throughput"]["no difference that matters"] >= _RUNS - 1
    assert not sum(verdicts["faster"] + verdicts["slower"] for verdicts in said.values()), said
