"""How widgets come to know the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from textual.widget import Widget

    from embedctl_console.app import ConsoleApp
    from embedctl_console.state import ConsoleState, Topic

    Show = Callable[[ConsoleState, Topic], None]


def console_of(node: Widget) -> ConsoleApp:
    """The app that `node` belongs to, by its own type."""
    return cast("ConsoleApp", node.app)


def follow(node: Widget, show: Show) -> None:
    """Call `show` with the state now, and on every change while the screen of `node` is to be seen.

    A screen that was hidden is told that everything changed when it comes back. Call this when `node` is
    mounted.
    """
    from embedctl_console.state import Topic

    app = console_of(node)

    def take(changed: Topic) -> None:
        if app.state is not None and node.is_attached and node.screen in app.screen_stack:
            show(app.state, changed)

    app.news.subscribe(node, take)
    take(Topic.ALL)
