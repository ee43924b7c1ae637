"""The Benchmarks screen's question: how much is to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from embedctl_console.screens.notices import dialog_keys

if TYPE_CHECKING:
    from textual.app import ComposeResult

PRESETS: Final = {
    "quick": "a minute: cold start, one text, batches",
    "standard": "ten minutes: also loads, lengths, energy, a soak",
    "thorough": "up to three hours: all of it longer, more lengths",
}
"""The lab's presets, in a few words."""


class PresetDialog(ModalScreen[str]):
    """Asks for a preset; the answer is its name, or nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Measure both backends", classes="dialog-title")
            yield OptionList(
                *(Option(f"{name:<9} {what}", id=name) for name, what in PRESETS.items()), markup=False
            )
            yield dialog_keys(("enter", "begins; cancel keeps what is complete"), ("escape", "leaves"))

    @on(OptionList.OptionSelected)
    def _selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(message.option_id or "")

    def action_leave(self) -> None:
        self.dismiss("")
