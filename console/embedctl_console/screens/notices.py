"""Screens that stand in the way of everything else: a question, an error at the start, leaving, too small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from embedctl_console.action import key_name
from embedctl_console.widgets.text import keyed

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.geometry import Size

    from embedctl.errors import EmbedctlError
    from embedctl.records import JobUpdate

MIN_WIDTH, MIN_HEIGHT = 60, 16


def too_small(size: Size) -> bool:
    return size.width < MIN_WIDTH or size.height < MIN_HEIGHT


def dialog_keys(*answers: tuple[str, str]) -> Static:
    """The keys that a dialog takes, as Textual names them, each with its words; they can be clicked too."""
    line = Content("    ").join([keyed(key_name(key), words, key) for key, words in answers])
    shown = Static(line, classes="dialog-keys")
    shown.auto_links = False
    return shown


class ConfirmDialog(ModalScreen[bool]):
    """A question with two answers; the harmless one is `n` and escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("q", "quit_pressed", "Quit", show=False),
    ]

    def __init__(self, question: str, detail: str, *, yes: str, no: str, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._question, self._detail, self._yes, self._no = question, detail, yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Content(self._question), classes="dialog-title")
            yield Static(Content(self._detail), classes="dialog-body")
            yield dialog_keys(("y", self._yes), ("n", self._no))

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)

    async def action_quit_pressed(self) -> None:
        """A second `q` means it, where the question is whether to quit; elsewhere it asks to quit."""
        if self.id == "quit-dialog":
            self.dismiss(True)
        else:
            await self.app.run_action("app.quit")


def quit_dialog(jobs: Sequence[JobUpdate]) -> ConfirmDialog:
    """Asks whether to leave although jobs run."""
    titles = "\n".join(f"• {job.title}" for job in jobs)
    resumable = any(job.kind == "download" for job in jobs)
    count = "A job runs" if len(jobs) == 1 else f"{len(jobs)} jobs run"
    return ConfirmDialog(
        f"{count}. Cancel and quit?",
        titles + ("\n\nA download can be taken up again later." if resumable else ""),
        yes="cancel and quit",
        no="stay",
        id="quit-dialog",
    )


class ProblemScreen(Screen[None]):
    """The engine could not be opened: what, why, what to do."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter", "app.quit", "Quit", show=False)]

    def __init__(self, error: EmbedctlError) -> None:
        super().__init__(classes="centred")
        self._error = error

    def compose(self) -> ComposeResult:
        error = self._error
        with Vertical(classes="dialog -problem"):
            yield Static(Content.assemble(("✗ ", "$text-error"), error.what), classes="dialog-title")
            if error.why:
                yield Static(Content(error.why), classes="dialog-body")
            if error.remedy:
                yield Static(Content.assemble(("→ ", "$text-accent"), error.remedy), classes="dialog-body")
            yield dialog_keys(("q", "quit"))


class LeavingScreen(ModalScreen[None]):
    """While the engine is being closed."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", "Leave now")]

    def __init__(self, *, attached: bool) -> None:
        """
        Args:
            attached: The engine is a service's and goes on.
        """
        super().__init__()
        self._attached = attached

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            if self._attached:
                yield Static("Detaching…", classes="dialog-title")
                yield Static("The service and its jobs go on.", classes="dialog-body")
            else:
                yield Static("Stopping workers…", classes="dialog-title")
                yield Static("Their memory is given back before the console ends.", classes="dialog-body")
            yield dialog_keys(("q", "leave without waiting"))


class TooSmallScreen(ModalScreen[None]):
    """Covers everything while the terminal is too small to show it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", "Quit")]

    def compose(self) -> ComposeResult:
        yield Static(id="too-small")

    def on_resize(self) -> None:
        self._look()

    def on_screen_resume(self) -> None:
        self._look()

    def _look(self) -> None:
        size = self.app.size
        if not self.is_current:
            return
        if not too_small(size):
            self.dismiss()
            return
        self.query_one("#too-small", Static).update(
            f"This terminal is too small: {size.width}×{size.height}.\n"
            f"At least {MIN_WIDTH}×{MIN_HEIGHT} are needed.\nq quits."
        )
