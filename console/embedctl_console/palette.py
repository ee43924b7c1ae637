"""The command palette's view of the list of actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from embedctl_console.actions import CHART, EVERYWHERE, NO_KEYMAP, Action, actions_of, is_available

if TYPE_CHECKING:
    from textual.dom import DOMNode

    from embedctl_console.app import ConsoleApp


class ActionsProvider(Provider):
    """Every action that can be used on the screen below the palette, with its key."""

    def _usable(self) -> Iterator[Action]:
        app = cast("ConsoleApp", self.app)
        keymap = app.state.keymap if app.state is not None else NO_KEYMAP
        for where in (getattr(self.screen, "WHERE", app.current_mode), CHART, EVERYWHERE):
            for action in actions_of(where, keymap):
                if action.called != "command_palette" and self._can(action):
                    yield action

    def _can(self, action: Action) -> bool:
        """By the word of the screen or the chart, which know more than the state."""
        if action.where == EVERYWHERE:
            return is_available(EVERYWHERE, action.called, cast("ConsoleApp", self.app).state)
        target = self._target(action)
        return target is not None and bool(target.check_action(action.called, ()))

    def _target(self, action: Action) -> DOMNode | None:
        """What does it: the screen; for a chart's actions that with the focus, else the first to be seen."""
        if action.where != CHART:
            return self.screen
        from embedctl_console.widgets.chart import TimeSeriesChart

        if isinstance(self.screen.focused, TimeSeriesChart):
            return self.screen.focused
        return next((chart for chart in self.screen.query(TimeSeriesChart) if chart.is_on_screen), None)

    async def _run(self, action: Action) -> None:
        await self.app.run_action(action.textual_action, self._target(action))

    async def discover(self) -> Hits:
        """Everything, before something is typed."""
        for action in self._usable():
            yield DiscoveryHit(_title(action), lambda a=action: self._run(a), help=action.help)

    async def search(self, query: str) -> Hits:
        """Actions whose words match `query`."""
        matcher = self.matcher(query)
        for action in self._usable():
            title = _title(action)
            score = max(matcher.match(title), matcher.match(action.help))
            if score > 0:
                yield Hit(score, matcher.highlight(title), lambda a=action: self._run(a), help=action.help)


def _title(action: Action) -> str:
    return f"{action.label} ({action.keys_shown})"
