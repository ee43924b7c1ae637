"""Where texts are typed, one a line."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.scroll_view import ScrollView
from textual.widgets import TextArea


class TextsArea(TextArea, inherit_bindings=False):
    """Leaves `ctrl+y` to the copy that it stands for everywhere; other keys bring back what was undone."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *ScrollView.BINDINGS,
        *(one for one in TextArea.BINDINGS if not (isinstance(one, Binding) and one.action == "redo")),
        Binding("ctrl+shift+z,super+y,super+shift+z", "redo", "Redo", show=False),
    ]

    def on_mount(self) -> None:
        self.cursor_blink = False  # each blink is a write to the terminal
