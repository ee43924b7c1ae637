"""What the Playground knows of the texts that it was asked about. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from embedctl.records import EmbedResult, Nearest

if TYPE_CHECKING:
    from embedctl.errors import EmbedctlError
    from embedctl.records import BackendName, Tokenisation

MOST_TEXTS: Final = 50
"""Of what was typed or pasted: to draw more would keep the keys waiting. The rest is left out, as is said."""
EXAMPLES: Final = (
    "Who discovered oxygen?",
    "Wer hat den Sauerstoff entdeckt?",
    "Which universities does Newcastle have?",
    "What started the plague, and how did it spread?",
)
"""Taken where nothing was typed: two that mean the same, and some that do not."""


@dataclass(slots=True)
class Findings:
    """Filled step by step while the work goes on."""

    texts: tuple[str, ...]
    left_out: int = 0
    """Texts beyond `MOST_TEXTS`."""
    asked: tuple[BackendName, ...] = ()
    """The backends that were loaded when the work began."""
    tokens: Tokenisation | None = None
    answers: dict[BackendName, EmbedResult | EmbedctlError] = field(default_factory=dict)
    """By backend, what it answered or why it did not."""
    nearest: dict[BackendName, Nearest | EmbedctlError] = field(default_factory=dict)

    def answer(self, backend: BackendName) -> EmbedResult | None:
        found = self.answers.get(backend)
        return found if isinstance(found, EmbedResult) else None

    @property
    def answered(self) -> tuple[BackendName, ...]:
        """Backends that gave vectors, in the order they were asked."""
        return tuple(name for name in self.answers if self.answer(name) is not None)


def texts_in(typed: str) -> tuple[str, ...]:
    """The lines that say something, as they stand."""
    lines = typed.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return tuple(line for line in lines if line.strip())
