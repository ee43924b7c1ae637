"""The two lines at the top of every screen: the machine and what is active; the screens and their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from embedctl_console.actions import SCREENS
from embedctl_console.follow import console_of, follow
from embedctl_console.widgets.text import Text, spread

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.events import ConnectionChanged
    from embedctl.records import Status
    from embedctl_console.state import ConsoleState, Topic


class TopBar(Widget):
    """Stands on every screen; the second line is clickable."""

    DEFAULT_CSS = """
    TopBar {
        dock: top;
        height: 2;
        layout: vertical;
        & > #machine { height: 1; padding: 0 1; background: $panel; }
        & > #screens {
            height: 1;
            padding: 0 1;
            background: $surface;
            link-style: none;
            link-color: $foreground;
        }
    }
    """

    def compose(self) -> ComposeResult:
        yield Text(id="machine")
        yield Text(id="screens")

    def on_mount(self) -> None:
        self.query_one("#screens", Text).show(screens_line(console_of(self).current_mode))
        follow(self, self.show_state)

    def on_resize(self) -> None:
        state = console_of(self).state
        if state is not None:
            self._show_machine(state)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        from embedctl_console.state import Topic

        if changed & (Topic.MACHINE | Topic.BACKENDS | Topic.CONNECTION):
            self._show_machine(state)

    def _show_machine(self, state: ConsoleState) -> None:
        line = machine_line(state.status, self.size.width - 2, state.connection)
        self.query_one("#machine", Text).show(line)


def machine_line(status: Status, width: int, connection: ConnectionChanged | None = None) -> Content:
    """The machine and its GPU at the left; demo, connection, active backend and recording at the right."""
    machine = status.machine
    if machine is None:
        place = "looking at this machine…"
    else:
        gpu = machine.gpu.name if machine.gpu else "no GPU"
        place = f"{machine.hostname} · {gpu}" if width >= 90 or not machine.simulated else gpu
    left = Content.assemble(("embedctl", "bold $primary"), f"  {place}")
    right = []
    if status.demo or (machine is not None and machine.simulated):
        right.append(Content.assemble((" SIMULATED GB10 · demo ", "bold $background on $demo")))
    if connection is not None and not connection.connected:  # all that follows would be of the past
        right.append(Content.assemble(("✗ connection lost", "bold $text-error")))
        return spread(left, Content("  ").join(right), width)
    if connection is not None:
        place = connection.where if width >= 110 else "attached"
        right.append(Content.assemble((f"⇄ {place}", "$text-accent")))
    name = status.active
    right.append(Content.assemble("active ", (name, f"bold $series-{name}")))
    if status.recording:
        right.append(Content.assemble(("●", "$error"), " recording" if width >= 90 else " rec"))
    else:
        right.append(Content.assemble(("○ not recording" if width >= 90 else "○ no rec", "$text-warning")))
    return spread(left, Content("  ").join(right), width)


def screens_line(current: str) -> Content:
    """The six screens with their keys; the current one stands out."""
    parts = []
    for number, (name, title) in enumerate(SCREENS, 1):
        here = name == current
        style = "bold reverse" if here else "$text-muted"
        parts.append(f"[{style} @click=app.show('{name}')] {number} {title} [/]")
    return Content.from_markup("".join(parts))
