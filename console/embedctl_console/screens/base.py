"""What every screen of the console has: the bars at top and bottom, and the app by its own type."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.screen import Screen

from embedctl_console.actions import is_available
from embedctl_console.follow import console_of, follow
from embedctl_console.widgets.bottom import BottomBar
from embedctl_console.widgets.top import TopBar

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from embedctl_console.app import ConsoleApp
    from embedctl_console.state import ConsoleState, Topic


class ConsoleScreen(Screen[None]):
    """A screen between the two bars. Subclasses give its body and take in what changed."""

    WHERE: ClassVar[str]
    """Its name in the list of actions."""
    JOBS: ClassVar[tuple[str, ...]] = ()
    """The kinds of job that the cancel key is about here, before all others."""
    TELLS: ClassVar[tuple[str, ...]] = ()
    """The kinds of job whose course and end the screen itself shows in full."""

    @property
    def console(self) -> ConsoleApp:
        return console_of(self)

    def compose(self) -> ComposeResult:
        yield TopBar()
        yield from self.compose_body()
        yield BottomBar()

    def compose_body(self) -> ComposeResult:
        """What stands between the bars."""
        raise NotImplementedError

    def on_mount(self) -> None:
        follow(self, self.show_state)

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        """Keep the styles: a new theme has been applied by now, and nothing else restyles what is hidden.

        That is most of what it takes to show a screen again.
        """
        event.refresh_styles = False

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        """Redraw what depends on `changed`. Called only while the screen is to be seen."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return is_available(self.WHERE, action, self.console.state)
