"""What can be done in History, in the replay of a last minute, and with a chart: a part of `actions`."""

from __future__ import annotations

from functools import partial
from typing import Final

from embedctl_console.action import Action

_history = partial(Action, where="history")
_replay = partial(Action, where="replay")
_chart = partial(Action, where="chart")

HISTORY_ACTIONS: Final = (
    _history(
        "shorter", "comma,less_than_sign", "Shorter range", "show a shorter range, down to a minute",
        action="range(-1)", pair=(", .", "Range"),
    ),
    _history(
        "longer", "full_stop,greater_than_sign", "Longer range", "show a longer range, up to 90 days",
        action="range(1)", shown=False,
    ),
    _history(
        "previous-event", "p", "Previous event", "go to the previous event, beyond the window too",
        action="event(-1)", pair=("p n", "Event"),
    ),
    _history(
        "next-event", "n", "Next event", "go to the next event, beyond the window too",
        action="event(1)", shown=False,
    ),
    _history(
        "lost-end", "z", "Last minute",
        "the last minute before the recording broke off; again: before the time before that",
        action="lost_end",
    ),
    _history(
        "replay", "r", "Replay",
        "play the last minute before the recording broke off, as it was to be seen then",
    ),
    _history(
        "open", "o", "About it", "what is known of the event at the cursor, or of the last one before it"
    ),
    _history(
        "mark", "m", "Mark",
        "begin or end a span at the cursor, without one mark the window (also shift and drag)",
    ),
    _history(
        "inspect", "i", "Statistics",
        "percentiles and energy of the window or of what is marked, two spans side by side",
    ),
    _history("unmark", "escape", "Unmark", "take the marks away", shown=False),
    _history("annotate", "a", "Note", "put a note at the cursor, or at this moment"),
    _history("view", "w", "Charts", "all charts, or one of them alone"),
    _history("export", "e", "Export", "write the window to a file: CSV, JSON or a picture"),
    _history("copy-path", "c", "Copy path", "copy the path of the file last exported", action="copy_path"),
)  # fmt: skip

REPLAY_ACTIONS: Final = (
    _replay("play", "space", "Play", "play or pause; from the end: play again from the begin"),
    _replay(
        "faster", "plus", "Faster", "play faster: 1, 4 or 10 times",
        action="speed(1)", pair=("+ -", "Speed"),
    ),
    _replay("slower", "minus", "Slower", "play slower", action="speed(-1)", shown=False),
    _replay(
        "forward", "right", "Next sample", "go on to the next sample",
        action="step(1)", pair=("← →", "Step"),
    ),
    _replay(
        "back", "left", "Previous sample", "go back to the sample before", action="step(-1)", shown=False
    ),
    _replay(
        "end", "end", "The end", "jump to where the recording broke off",
        action="jump(1)", pair=("home end", "Jump"),
    ),
    _replay(
        "begin", "home", "The begin", "jump to the begin of the last minute", action="jump(-1)", shown=False
    ),
    _replay("leave", "escape,backspace", "Back", "back to History"),
)  # fmt: skip

_hidden = partial(Action, where="chart", shown=False)

CHART_ACTIONS: Final = (
    _hidden("left", "left", "Cursor left", "move the cursor, read the values under it", action="step(-1)"),
    _hidden("right", "right", "Cursor right", "move the cursor, read the values under it", action="step(1)"),
    _hidden("far-left", "ctrl+left", "Far left", "move the cursor by ten columns", action="step(-10)"),
    _hidden("far-right", "ctrl+right", "Far right", "move the cursor by ten columns", action="step(10)"),
    _hidden("first", "home", "First value", "put the cursor to the begin of the window", action="edge(0)"),
    _hidden("last", "end", "Last value", "put the cursor to the end of the window", action="edge(1)"),
    _hidden("no-cursor", "escape", "No cursor", "read the newest values", action="drop_cursor"),
    _chart(
        "zoom-in", "plus", "Zoom in", "zoom in at the cursor, as the wheel does at the mouse",
        action="zoom(1)", pair=("+ -", "Zoom"),
    ),
    _hidden(
        "zoom-out", "minus", "Zoom out", "zoom out at the cursor, as the wheel does at the mouse",
        action="zoom(-1)",
    ),
    _hidden(
        "back", "left_square_bracket,shift+left", "Earlier", "move the window back, as a drag does",
        action="pan(-1)",
    ),
    _hidden(
        "on", "right_square_bracket,shift+right", "Later", "move the window on, as a drag does",
        action="pan(1)",
    ),
    _chart("reset", "equals_sign", "Reset", "back to the whole range, live"),
    _chart("freeze", "f", "Freeze", "stand still, or follow the clock again"),
    _hidden(
        "series-before", "up", "Series before", "choose a series in the legend (escape: none)",
        action="choose(-1)",
    ),
    _hidden(
        "series-after", "down", "Series after", "choose a series in the legend (escape: none)",
        action="choose(1)",
    ),
    _hidden(
        "toggle", "space", "Hide, show",
        "hide or show the series chosen in the legend, as a click on it does",
        action="toggle_series",
    ),
    _hidden("log", "y", "Log scale", "show values on a logarithmic scale or not"),
)  # fmt: skip
