"""The History screen's two questions: what to note, and as what to export."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from embedctl_console.screens.history_export import FORMATS
from embedctl_console.screens.notices import dialog_keys

if TYPE_CHECKING:
    from textual.app import ComposeResult


class NoteDialog(ModalScreen[str]):
    """Asks for a line of text; an empty one, or escape, is no note."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "No note")]

    def __init__(self, moment: str) -> None:
        super().__init__()
        self._moment = moment

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"A note at {self._moment}", classes="dialog-title", markup=False)
            yield Input(placeholder="what happened here", max_length=200)
            yield dialog_keys(("enter", "keeps it"), ("escape", "leaves"))

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        self.dismiss(message.value.strip())

    def action_leave(self) -> None:
        self.dismiss("")


class ExportDialog(ModalScreen[str]):
    """Asks for a format; the answer is its ending, or nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(ending[0], f"choose('{ending}')", ending.upper(), show=False) for ending in FORMATS),
        Binding("escape", "choose('')", "Leave"),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Export this window", classes="dialog-title")
            yield OptionList(
                *(Option(f"{ending.upper():<5} {what}", id=ending) for ending, what in FORMATS.items()),
                markup=False,
            )
            yield dialog_keys(("enter", "or the first letter writes it"), ("escape", "leaves"))

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(message.option_id or "")

    def action_choose(self, ending: str) -> None:
        self.dismiss(ending)
