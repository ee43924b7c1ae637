"""The little language of `--fail-on`: which changes from run A to run B are not to be accepted.

    conditions = condition { "," condition }
    condition  = [ backend ":" ] figure [ "@" shape ] ( ">" | "<" ) number

`p95>1.1` is met where p95 became more than 1.1 times as long; `native:texts_per_s@batch of 32<0.95` looks at
one row alone. A figure stands for B over A, or for B less A where it is a quality (`ndcg<-0.01`, see
`DIFFERENCES`). A condition is met only where the whole interval of the change lies beyond the number, not met
where all of it lies on this side, and undecided between the two or without an interval.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from embedctl.errors import UsageError
from embedctl.records import BackendName, ConditionOutcome, FigureDelta

DIFFERENCES: Final = frozenset({"ndcg", "mrr", "recall", "accuracy", "cosine"})
"""Figures that are compared by difference; all others are by ratio."""
NO_SPEED: Final = frozenset(
    {
        *("peak", "load_peak", "claimed_bytes", "pool_low_bytes", "gpu_low_bytes", "swap_peak_bytes"),
        *("pressure_peak_percent", *DIFFERENCES),
    }
)
"""Figures that a row shows even where it shows nothing of the backend's speed."""
_CONDITION: Final = re.compile(
    r"""\s*(?:(?P<backend>\w+)\s*:\s*)?(?P<figure>[A-Za-z_]\w*)\s*(?:@\s*(?P<shape>[^<>,]+?)\s*)?
        (?P<sign>[<>])\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """One change that is not accepted."""

    text: str
    at: int
    """Where it begins in what was written, from 1."""
    backend: str | None
    figure: str
    shape: str | None
    sign: Literal["<", ">"]
    number: float

    def concerns(self, delta: FigureDelta) -> bool:
        return (
            self.figure == delta.name
            and self.backend in (None, delta.backend)
            and self.shape in (None, delta.shape)
        )

    def judge(self, delta: FigureDelta) -> Literal["met", "not met", "undecided"]:
        """The interval of the change against the number."""
        change = delta.change
        if change is None or change.low is None or change.high is None:
            return "undecided"
        if self.sign == ">":
            return (
                "met"
                if change.low > self.number
                else "not met"
                if change.high <= self.number
                else "undecided"
            )
        return "met" if change.high < self.number else "not met" if change.low >= self.number else "undecided"


def parse(text: str) -> tuple[Condition, ...]:
    """Read conditions; none from an empty text.

    Raises:
        UsageError: It cannot be read; names the position.
    """
    found: list[Condition] = []
    place = 0
    while text.strip():
        match = _CONDITION.match(text, place)
        if match is None:
            raise _unreadable(text, place, "a condition such as p95>1.1 is expected there")
        begin = place + len(match[0]) - len(match[0].lstrip())
        sign: Literal["<", ">"] = ">" if match["sign"] == ">" else "<"
        found.append(
            Condition(
                match[0].strip(), begin + 1, match["backend"], match["figure"], match["shape"], sign,
                float(match["number"]),
            )
        )  # fmt: skip
        if match.end() == len(text):
            break
        if text[match.end()] != ",":
            raise _unreadable(text, match.end(), "a comma or the end is expected there")
        place = match.end() + 1
    return tuple(found)


def judge(
    conditions: Sequence[Condition],
    deltas: Sequence[FigureDelta],
    silent: Mapping[tuple[BackendName, str], str] | None = None,
) -> tuple[ConditionOutcome, ...]:
    """Every condition against every row that it concerns.

    Args:
        silent: Rows, by backend and shape, that say nothing of a speed any more, and why.

    Raises:
        UsageError: A condition concerns nothing that both runs have, or a speed that B no longer shows: what
            was not measured has not passed.
    """
    outcomes = []
    for condition in conditions:
        concerned = [delta for delta in deltas if condition.concerns(delta)]
        if not concerned:
            there = ", ".join(dict.fromkeys(delta.name for delta in deltas)) or "nothing"
            raise UsageError(
                f"“{condition.text}” (position {condition.at}) cannot be judged",
                why="no row that both runs have fits it",
                remedy=f"both runs have: {there}",
            )
        for delta in concerned:
            why = (silent or {}).get((delta.backend, delta.shape), "")
            if why and delta.name not in NO_SPEED:
                raise UsageError(
                    f"“{condition.text}” (position {condition.at}) cannot be judged",
                    why=f"{delta.backend}, {delta.shape}: {why}",
                    remedy="see what is wrong there: `embedctl check`",
                )
        outcomes += [ConditionOutcome(condition.text, delta, condition.judge(delta)) for delta in concerned]
    return tuple(outcomes)


def _unreadable(text: str, place: int, expected: str) -> UsageError:
    rest = text[place:].strip()
    return UsageError(
        f"The conditions cannot be read at position {place + 1}",
        why=f"{expected}, not {f'“{rest[:20]}”' if rest else 'the end'}",
        remedy="write figure>number or figure<number, with commas between: p95>1.1,texts_per_s<0.95",
    )
