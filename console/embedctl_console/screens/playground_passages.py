"""The Playground's question for a file of passages, and its reading."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input

from embedctl.errors import UsageError
from embedctl.format import format_bytes
from embedctl.text_files import texts_of
from embedctl_console.screens.notices import dialog_keys
from embedctl_console.widgets.text import Text

if TYPE_CHECKING:
    from textual.app import ComposeResult

_MOST_BYTES: Final = 16_000_000
"""More is not read: the engine would refuse it anyway."""
_NAMED: Final = 80
"""Characters of a path that are told, the last ones."""


class PassagesDialog(ModalScreen[str | None]):
    """Asks for a path. An empty one stands for the built-in passages, None for no change."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Text(Content.assemble(("Passages to search", "bold")), classes="dialog-title")
            yield Text(
                "A text file with one passage a line, or a .jsonl file with a field “text”. Without a path: "
                "the built-in paragraphs of XQuAD in six languages (CC BY-SA 4.0).",
                classes="dialog-body",
            )
            yield Input(placeholder="path of a file on this machine")
            yield dialog_keys(("enter", "takes it"), ("escape", "leaves it as it is"))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_leave(self) -> None:
        self.dismiss(None)


def read_passages(file: Path) -> tuple[str, ...]:
    """[slow] The passages of a file.

    Raises:
        UsageError: It cannot be read, is empty, or is too large to be searched while somebody waits.
    """
    try:
        file = file.expanduser().absolute()
        found = file.stat()
    except (OSError, RuntimeError, ValueError) as error:  # also: no such user, a text pasted as a path
        named = str(file)
        raise UsageError(
            f"{named if len(named) <= _NAMED else '…' + named[-_NAMED:]} cannot be read",
            why=(isinstance(error, OSError) and error.strerror) or str(error),
            remedy="give a text file in UTF-8 that you may read",
        ) from error
    if not stat.S_ISREG(found.st_mode):  # a pipe or a device might never end
        raise UsageError(
            f"{file.name or file} is no plain file", remedy="give a text file in UTF-8 that you may read"
        )
    if found.st_size > _MOST_BYTES:
        raise UsageError(
            f"{file.name} is too large to be searched here",
            why=f"it has {format_bytes(found.st_size)}",
            remedy="give a smaller file; `embedctl quality` searches large sets",
        )
    return tuple(texts_of(file))
