"""How long Ollama keeps a model: the setting in the form that its API takes."""

from __future__ import annotations

import re

from embedctl.errors import SettingsError

_DURATION = re.compile(r"^-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$")


def parse_keep_alive(value: str) -> str | float:
    """Ollama takes a Go duration as a string, and seconds as a number only.

    Raises:
        SettingsError: It is neither.
    """
    try:
        return float(value)
    except ValueError:
        if _DURATION.match(value):
            return value
    raise SettingsError(
        f"ollama.keep_alive = {value!r} is not allowed",
        why="Ollama takes a duration with a unit, or seconds",
        remedy="write it as 30m, 1h30m, 300 (seconds), 0 (unload at once) or -1 (for ever)",
    )
