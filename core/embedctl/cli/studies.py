"""What the commands for studies have in common: the last one instead of a new one, and an open answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedctl.errors import UsageError

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade
    from embedctl.records import Study

EXIT_UNDECIDED: Final = 2
"""The question could not be answered."""


def last_study(opened: EngineFacade, kind: str, *, missing: str, remedy: str) -> Study:
    """The newest study of a kind.

    Raises:
        UsageError: There is none; says `missing` and `remedy`.
    """
    found = opened.studies(kind, 1)
    if not found:
        raise UsageError(missing, remedy=remedy)
    return opened.study(found[0].id)
