"""The History screen's keys. Of two that belong together, one speaks for both where keys are listed."""

from __future__ import annotations

from typing import Final

from textual.binding import Binding


def _key(key: str, action: str, label: str, name: str, tooltip: str, *, display: str = "") -> Binding:
    return Binding(key, action, label, key_display=display or None, id=f"history.{name}", tooltip=tooltip)


HISTORY_BINDINGS: Final = (
    _key(
        "comma", "range(-1)", "Range", "shorter", "a shorter or a longer range, a minute to 90 days",
        display=", .",
    ),
    Binding("full_stop", "range(1)", show=False, id="history.longer"),
    Binding("less_than_sign", "range(-1)", show=False, id="history.shorter-too"),
    Binding("greater_than_sign", "range(1)", show=False, id="history.longer-too"),
    _key(
        "p", "event(-1)", "Event", "previous-event",
        "go to the previous or the next event, beyond the window too", display="p n",
    ),
    Binding("n", "event(1)", show=False, id="history.next-event"),
    _key(
        "z", "lost_end", "Last minute", "lost-end",
        "the last minute before the recording broke off; again: before the time before that",
    ),
    _key(
        "o", "open", "About it", "open",
        "what is known of the event at the cursor, or of the last one before it",
    ),
    _key(
        "m", "mark", "Mark", "mark",
        "begin or end a span at the cursor, without one mark the window (also shift and drag)",
    ),
    _key(
        "i", "inspect", "Statistics", "inspect",
        "percentiles and energy of the window or of what is marked, two spans side by side",
    ),
    Binding("escape", "unmark", "Unmark", show=False, id="history.unmark", tooltip="take the marks away"),
    _key("a", "annotate", "Note", "annotate", "put a note at the cursor, or at this moment"),
    _key("w", "view", "Charts", "view", "all charts, or one of them alone"),
    _key("e", "export", "Export", "export", "write the window to a file: CSV, JSON or a picture"),
    _key("c", "copy_path", "Copy path", "copy-path", "of the file last exported"),
)  # fmt: skip
