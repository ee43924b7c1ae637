"""A table of rows whose enter key belongs to the screen, as all its other actions do."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import DataTable


class RowTable(DataTable[Content], inherit_bindings=False):
    """Moves a cursor over rows. What enter does is an action of the list, which shows it and can remap it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        binding
        for binding in DataTable.BINDINGS
        if not (isinstance(binding, Binding) and binding.key == "enter")
    ]

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id, cursor_type="row")
