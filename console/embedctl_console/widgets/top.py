"""The two lines at the top of every screen: the machine and what is active; the screens and their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual.content import Content
from textual.markup import escape
from textual.widget import Widget

from embedctl_console.actions import EVERYWHERE, NO_KEYMAP, SCREENS, key_of
from embedctl_console.follow import console_of, follow
from embedctl_console.widgets.text import Text, spread

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.events import ConnectionChanged
    from embedctl.records import Status
    from embedctl_console.actions import Keymap
    from embedctl_console.state import ConsoleState, Topic


_SHORT: Final = {
    "dashboard": "Dash", "benchmarks": "Bench", "history": "Hist", "settings": "Set", "playground": "Play"
}  # fmt: skip
"""Titles where the whole ones do not fit."""


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
        follow(self, self.show_state)

    def _show_screens(self) -> None:
        app = console_of(self)
        keymap = app.state.keymap if app.state is not None else NO_KEYMAP
        width = self.size.width or app.size.width
        self.query_one("#screens", Text).show(screens_line(app.current_mode, width - 2, keymap))

    def on_resize(self) -> None:
        self._show_screens()
        state = console_of(self).state
        if state is not None:
            self._show_machine(state)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        from embedctl_console.state import Topic

        if changed & Topic.KEYS:
            self._show_screens()
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
        place = connection.where if width >= 110 else connection.place[:16] or "attached"
        right.append(Content.assemble((f"⇄ {place}", "$text-accent")))
    name = status.active
    right.append(Content.assemble("active ", (name, f"bold $series-{name}")))
    if status.recording:
        right.append(Content.assemble(("●", "$error"), " recording" if width >= 90 else " rec"))
    else:
        right.append(Content.assemble(("○ not recording" if width >= 90 else "○ no rec", "$text-warning")))
    return spread(left, Content("  ").join(right), width)


def screens_line(current: str, width: int, keymap: Keymap = NO_KEYMAP) -> Content:
    """The screens with their keys, the current one standing out; short titles or none where room lacks."""
    keys = {name: key_of(f"{EVERYWHERE}.show-{name}", keymap) for name, _ in SCREENS}
    full = [(name, f" {keys[name]} {title} ") for name, title in SCREENS]
    short = [(name, f"{keys[name]} {_SHORT.get(name, title)}") for name, title in SCREENS]
    least = [
        (name, f" {keys[name]} {title} " if name == current else f" {keys[name]} ") for name, title in SCREENS
    ]
    gap, chosen = "", full
    if sum(len(words) for _, words in full) > width:
        gap, chosen = " ", short
    if sum(len(words) for _, words in short) + len(short) - 1 > width:
        gap, chosen = "", least
    return Content.from_markup(
        gap.join(
            f"[{'bold reverse' if name == current else '$text-muted'} @click=app.show('{name}')]"
            f"{escape(words)}[/]"
            for name, words in chosen
        )
    )
