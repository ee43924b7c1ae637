"""The user's own keys: `[console.keys]` checked against the actions there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS, Keys, key_to_character

from embedctl_console.actions import CHART, EVERYWHERE, key_name

if TYPE_CHECKING:
    from embedctl_console.actions import Action, Keymap

_NAMED: Final = frozenset({*(key.value for key in Keys), *KEY_NAME_REPLACEMENTS.values()})
_MODIFIERS: Final = frozenset({"ctrl", "shift", "alt"})
FIXED_KEYS: Final = "a dialog's keys, so that it can always be left; arrows, tab, paging"
"""Which keys cannot be changed, and why: no entry of `[console.keys]` names them."""
_WITH_CHARTS: Final = frozenset({"dashboard", "history"})


def checked(wanted: Keymap, actions: Sequence[Action]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What of `wanted` can be used, and what is wrong with the rest, a sentence each.

    An entry that names no action or no key, or a key that another action has where both work, is left out:
    that action keeps its usual keys.
    """
    by_id = {action.id: action for action in actions}
    used: dict[str, str] = {}
    problems = []
    for name, keys in wanted.items():
        if name not in by_id:
            near = get_close_matches(name, by_id, 1, 0.5)
            problems.append(f"there is no action {name!r}" + (f"; {near[0]!r} is meant?" if near else ""))
        elif strange := [key for key in keys.split(",") if not is_key(key.strip())]:
            problems.append(
                f"{name}: {strange[0]!r} is no key; keys are such as w, f5, ctrl+b, question_mark"
            )
        else:
            used[name] = ",".join(one.key for one in Binding.make_bindings([Binding(keys, "", "")]))
    clashes = _conflicts(used, by_id.values())
    for name, said in clashes.items():
        problems.append(said)
        del used[name]
    return used, tuple(problems)


def is_key(key: str) -> bool:
    """Whether a terminal can send this key, as far as its name tells."""
    *modifiers, last = key.split("+") if key != "+" else [key]
    if not last.strip() or not all(modifier in _MODIFIERS for modifier in modifiers):
        return False
    return last in _NAMED or (len(last) == 1 and not last.isspace()) or key_to_character(last) is not None


def _conflicts(used: Keymap, actions: Iterable[Action]) -> dict[str, str]:
    """By the id of a changed action, which other one has one of its keys in the same place."""
    mapped = [action.under(used) for action in actions]
    found: dict[str, str] = {}
    for action in mapped:
        if action.id not in used:
            continue
        for other in mapped:
            if other.id == action.id or other.id in found or not _meet(action.where, other.where):
                continue
            shared = set(action.key.split(",")) & set(other.key.split(","))
            if shared:
                key = key_name(min(shared))
                found[action.id] = f"{action.id}: {key} is the key of {other.id} ({other.help})"
                break
    return found


def _meet(a: str, b: str) -> bool:
    """Whether actions of these two places can be used at the same time."""
    if a == b or EVERYWHERE in (a, b):
        return True
    return (a == CHART and b in _WITH_CHARTS) or (b == CHART and a in _WITH_CHARTS)
