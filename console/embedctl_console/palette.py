"""The command palette's view of the list of actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from embedctl_console.actions import EVERYWHERE, NO_KEYMAP, Action, actions_of, is_available

if TYPE_CHECKING:
    from embedctl_console.app import ConsoleApp


class ActionsProvider(Provider):
    """Every action that can be used on the screen below the palette, with its key."""

    def _usable(self) -> Iterator[Action]:
        app = cast("ConsoleApp", self.app)
        keymap = app.state.keymap if app.state is not None else NO_KEYMAP
        for where in (getattr(self.screen, "WHERE", app.current_mode), EVERYWHERE):
            for action in actions_of(where, keymap):
                name = (action.action or action.name).split("(")[0]
                if name != "command_palette" and self._can(where, name):
                    yield action

    def _can(self, where: str, name: str) -> bool:
        """By the word of the screen, which knows more than the state."""
        if where == EVERYWHERE:
            return is_available(where, name, cast("ConsoleApp", self.app).state)
        return bool(self.screen.check_action(name, ()))

    async def _run(self, action: Action) -> None:
        await self.app.run_action(action.textual_action, self.screen)

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
