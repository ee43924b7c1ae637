"""What an action is: its key, its words, where and when it can be used. The list of them is in `actions`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from textual.binding import Binding

if TYPE_CHECKING:
    from embedctl_console.state import ConsoleState

EVERYWHERE: Final = "everywhere"

Keymap = Mapping[str, str]
"""Keys that the user has chosen, by the ids of actions; several are separated by commas."""

When = Callable[["ConsoleState"], bool]


def _always(_: ConsoleState) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Action:
    """Something the user can do."""

    name: str
    """Unique together with `where`; the binding's id is `where.name`."""
    key: str
    """Textual's key names, separated by commas."""
    label: str
    """One or two words for the line of keys."""
    help: str
    """A sentence for Help and the palette, without a full stop."""
    where: str = EVERYWHERE
    action: str = ""
    """Textual's action; `name` unless said otherwise."""
    when: When = _always
    shown: bool = True
    """Whether the line of keys has it (Help and the palette have all)."""
    pair: tuple[str, str] | None = None
    """Keys and words for the line of keys, where one action speaks for two that belong together."""
    priority: bool = False
    """Works in dialogs too."""

    @property
    def id(self) -> str:
        """The binding's id, by which the user's key map names it."""
        return f"{self.where}.{self.name}"

    def under(self, keymap: Keymap) -> Action:
        """The same action with the keys that the user has chosen for it."""
        keys = keymap.get(self.id)
        return self if keys is None else replace(self, key=keys)

    @property
    def called(self) -> str:
        """The name of Textual's action, without arguments."""
        return (self.action or self.name).split("(")[0]

    @property
    def textual_action(self) -> str:
        """As `run_action` takes it; actions that work everywhere belong to the app."""
        action = self.action or self.name
        return f"app.{action}" if self.where == EVERYWHERE else action

    @property
    def keys_shown(self) -> str:
        return ", ".join(key_name(key) for key in self.key.split(","))

    def binding(self) -> Binding:
        keys, words = self.pair or (None, self.label)
        return Binding(
            self.key,
            self.action or self.name,
            words,
            show=self.shown,
            key_display=keys,
            priority=self.priority,
            tooltip=self.help,
            id=self.id,
        )


_KEY_NAMES: Final = {
    "question_mark": "?",
    "escape": "esc",
    "enter": "enter",
    "space": "space",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "equals_sign": "=",
    "plus": "+",
    "minus": "-",
    "comma": ",",
    "full_stop": ".",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
}


def key_name(key: str) -> str:
    """A key as it is printed: `question_mark` → `?`, `ctrl+c` → `ctrl+c`."""
    *modifiers, last = key.split("+") if key != "+" else [key]
    return "+".join([*modifiers, _KEY_NAMES.get(last, last)])
