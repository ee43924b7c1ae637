"""Backends that are measured in turns get the same texts, whatever each alone would have got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import pytest

from embedctl.engine.turns import NOTE, UNLIKE, in_turns
from embedctl.errors import Cancelled
from embedctl.lab.benchmark import OF_QUESTIONS, run_benchmark
from embedctl.progress import CancelToken, silent
from embedctl.records import Run
from tests.support.lab import WORKLOAD, Scripted, VirtualPace

TEXTS = replace(WORKLOAD, passages=tuple(f"passage {n} " + "x" * 300 * (n % 2) for n in range(40)))
"""Half of the passages fit into 100 tokens."""


class NothingLoaded:
    """A lifecycle with nothing to put away."""

    def ready(self, name: str) -> bool:
        return False

    def away(self, name: str, job: object) -> AbstractContextManager[None]:
        return nullcontext()


def tokens(texts: Sequence[str]) -> int:
    return sum(max(10, len(text) // 2) for text in texts)


class Turns:
    """native and ollama in turns on a virtual clock; the second is as slow as a test wants it."""

    def __init__(self, per_token: dict[str, float], limits: dict[str, int] | None = None) -> None:
        self.pace = VirtualPace()
        self.backends = {name: self._backend(name, seconds) for name, seconds in per_token.items()}
        self.limits = limits or {}
        self.kept: list[Run] = []
        self.cancel = CancelToken()

    def _backend(self, name: str, per_token: float) -> Scripted:
        backend = Scripted(name, self.pace, lambda n: 0.0)
        backend.seconds_of = lambda texts: per_token * tokens(texts)
        return backend

    def run(self, *, known: int | None = None, resumed: Run | None = None) -> Run:
        """`known`: the least limit that is known of all of them before the first turn."""

        def alone(name: str, keep: Callable[[Run], Run], resumed: Run | None, beside: Run | None) -> Run:
            backend = self.backends[name]
            backend.max_tokens = self.limits.get(name, 512)
            return run_benchmark(
                [backend.target()], preset="quick", count_tokens=tokens, machine=None, progress=silent,
                cancel=self.cancel, pace=self.pace, workload=TEXTS, sampling=self.pace.sampling,
                keep=keep, resumed=resumed, max_tokens=known, beside=beside,
            )  # fmt: skip

        def keep(run: Run) -> Run:
            self.kept.append(replace(run, id=5))
            return self.kept[-1]

        lifecycle: Any = NothingLoaded()
        return in_turns(list(self.backends), lifecycle, cast(Any, None), alone, keep, resumed)


@pytest.mark.parametrize("first_is_slow", [True, False])
def test_both_turns_get_the_texts_of_the_first(first_is_slow: bool) -> None:
    """The slow one alone would get questions where the fast one gets passages."""
    slow, fast = 0.01, 0.00001
    turns = Turns({"native": slow, "ollama": fast} if first_is_slow else {"native": fast, "ollama": slow})
    run = turns.run()
    lengths = {
        name: max(tokens([text]) for texts in backend.log if len(texts) == 16 for text in texts)
        for name, backend in turns.backends.items()
    }
    assert (lengths["native"] < 50) is first_is_slow
    assert lengths["ollama"] == lengths["native"]
    assert (OF_QUESTIONS in run.notes) is first_is_slow
    assert ("batches of questions" in run.workload) is first_is_slow
    assert run.notes[0] == NOTE and UNLIKE not in run.notes


def test_a_limit_that_is_known_of_the_second_holds_for_the_first() -> None:
    turns = Turns({"native": 0.00001, "ollama": 0.00001}, {"native": 512, "ollama": 100})
    run = turns.run(known=100)
    longest = {
        name: max(tokens([text]) for texts in one.log if len(texts) == 16 for text in texts)
        for name, one in turns.backends.items()
    }
    assert longest["native"] == longest["ollama"] < 100
    assert UNLIKE not in run.notes


def test_turns_on_different_texts_say_so_and_each_is_gone_on_with_on_its_own() -> None:
    """What the second can take shows only once it is loaded."""
    turns = Turns({"native": 0.00001, "ollama": 0.00001}, {"native": 512, "ollama": 100})
    turns.backends["ollama"].fails = lambda texts: bool(len(texts) == 64 and turns.cancel.cancel())
    with pytest.raises(Cancelled):
        turns.run()
    cut = turns.kept[-1]
    assert UNLIKE in cut.notes
    assert cut.workload.startswith("native: test ") and "; ollama: test, up to 100 tokens " in cut.workload

    turns.cancel = CancelToken()
    turns.backends["ollama"].fails = lambda texts: False
    turns.backends["ollama"].log.clear()
    whole = turns.run(resumed=cut)
    assert (whole.state, whole.workload) == ("done", cut.workload)
    assert whole.measurements[: len(cut.measurements)] == cut.measurements
    sizes = {len(texts) for texts in turns.backends["ollama"].log}
    assert sizes == {1, 8, 64, 128}
    assert max(tokens([text]) for texts in turns.backends["ollama"].log for text in texts) <= 100


def test_a_turn_that_is_gone_on_with_keeps_the_limit_that_was_known_then() -> None:
    turns = Turns({"native": 0.00001, "ollama": 0.00001}, {"native": 512, "ollama": 512})
    turns.backends["native"].fails = lambda texts: bool(len(texts) == 64 and turns.cancel.cancel())
    with pytest.raises(Cancelled):
        turns.run(known=512)
    turns.cancel = CancelToken()
    turns.backends["native"].fails = lambda texts: False
    whole = turns.run(known=100, resumed=turns.kept[-1])
    assert whole.state == "done"
