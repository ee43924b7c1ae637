"""A text that a screen opens: read beside the event loop, scrolled, left with escape."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content

from embedctl.errors import EmbedctlError
from embedctl_console.actions import bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.text import Text, failure_text

if TYPE_CHECKING:
    from textual.app import ComposeResult


class ReadingScreen(ConsoleScreen):
    """A text that may have to be fetched; escape goes back."""

    WHERE = "reading"
    CSS_PATH = "reading.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("reading")]

    def __init__(self, read: Callable[[int], Content]) -> None:
        """A screen that shows what `read` returns for a width in cells."""
        super().__init__()
        self._read = read
        self._width = 0
        """Cells that the text is read for."""

    def compose_body(self) -> ComposeResult:
        with VerticalScroll(id="reading-scroll"):
            yield Text("Reading…", id="reading")

    def on_mount(self) -> None:
        self._load_at_this_width()

    def on_resize(self) -> None:
        self._load_at_this_width()

    def _load_at_this_width(self) -> None:
        width = self.app.size.width - 4
        if width != self._width:  # it is mounted and laid out at once, and a reading may be long
            self._width = width
            self.run_worker(self._load(width), group="reading", exclusive=True)

    async def _load(self, width: int) -> None:
        try:
            text = await run_in_thread(self._read, width)
        except EmbedctlError as error:
            text = failure_text(error.what, error.why, error.remedy)
        self.query_one("#reading", Text).show(text)

    def action_back(self) -> None:
        self.dismiss()
