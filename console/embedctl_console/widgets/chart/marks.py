"""Events as marks on the time axis. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from embedctl.records import Event

_LETTERS: Final = {"start": "[", "stop": "]", "error": "!", "switch": "S", "throttling": "^", "lost": "X"}
"""Signs that are not the first letter of their kind; the brackets enclose recorded time."""
_WEIGHTS: Final = {
    "lost": 5,
    "error": 4,
    "switch": 3,
    "health": 3,
    "throttling": 2,
    "trial": 2,
    "start": 1,
    "stop": 1,
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A dated sign on the time axis."""

    at: float
    kind: str
    """As `Event.kind`, or `lost` where the recording broke off."""
    label: str

    @property
    def letter(self) -> str:
        """One ASCII character per kind: S switch, L load, U unload, R run, D download, C check, T trial,
        H health, ^ throttling, ! error."""
        return _LETTERS.get(self.kind) or self.kind[:1].upper() or "?"

    @property
    def weight(self) -> int:
        """Which of several marks in one cell is shown: the greatest."""
        return _WEIGHTS.get(self.kind, 0)

    @property
    def alarming(self) -> bool:
        """Whether it is shown in the colour of errors."""
        return self.kind in ("error", "lost")


def marks_of(events: Iterable[Event]) -> tuple[Mark, ...]:
    """One mark per event, oldest first."""
    return tuple(sorted((Mark(e.at, e.kind, e.title) for e in events), key=lambda mark: mark.at))


def nearest_mark(marks: Sequence[Mark], at: float, reach: float) -> Mark | None:
    """The mark nearest to `at` within `reach` seconds; of equally near ones the weightiest."""
    near = [mark for mark in marks if abs(mark.at - at) <= reach]
    return min(near, key=lambda mark: (abs(mark.at - at), -mark.weight), default=None)
