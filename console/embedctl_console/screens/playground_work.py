"""The Playground's questions to the engine, in order; each answer goes into the findings as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from embedctl.errors import Cancelled, EmbedctlError
from embedctl_console.tasks import run_in_thread

if TYPE_CHECKING:
    from embedctl.engine import EngineFacade
    from embedctl.progress import CancelToken
    from embedctl.records import BackendName, EmbedResult
    from embedctl_console.screens.playground_findings import Findings

Tell = Callable[[str], None]
"""Takes what runs now, in words; what was found before is in the findings by then."""

_NEAREST: Final = 3
"""Passages per text."""
_PATIENCE: Final = 1.0
"""Seconds after which a search that embeds its passages first tells where it is."""


async def look(
    engine: EngineFacade, found: Findings, backends: Sequence[BackendName], tell: Tell, cancel: CancelToken
) -> None:
    """Pieces first, then each backend's vectors, one after the other: neither slows the other down.

    Raises:
        EmbedctlError: There are no pieces for another reason than a missing tokenizer.
        Cancelled: `cancel` was set.
    """
    found.asked = tuple(backends)
    tell("reading the pieces")
    found.tokens = await run_in_thread(engine.tokens, found.texts)
    for name in backends:
        tell(f"{name} embeds {len(found.texts)} texts")
        try:
            found.answers[name] = await run_in_thread(engine.embed, found.texts, backend=name, cancel=cancel)
        except Cancelled:
            raise
        except EmbedctlError as error:  # the other backend may do better
            found.answers[name] = error


async def search(
    engine: EngineFacade,
    found: Findings,
    answer: EmbedResult,
    passages: Sequence[str] | None,
    tell: Tell,
    cancel: CancelToken,
) -> None:
    """The passages nearest to the texts of an answer; while new ones are embedded, what is found so far.

    Raises:
        Cancelled: `cancel` was set.
    """
    name = answer.backend
    tell(f"{name} searches the passages")
    waiting = True
    while waiting:
        try:
            nearest = await run_in_thread(
                engine.nearest, answer, passages=passages, count=_NEAREST, patience=_PATIENCE, cancel=cancel
            )
        except Cancelled:
            raise
        except EmbedctlError as error:
            found.nearest[name] = error
            return
        found.nearest[name] = nearest
        waiting = nearest.waiting > 0
        done = nearest.passages - nearest.waiting
        tell(f"{name} embeds the passages, once: {done:,} of {nearest.passages:,}")
