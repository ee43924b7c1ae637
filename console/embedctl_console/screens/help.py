"""The Help screen: keys by screen, words explained, where the files lie, how to change the looks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Final

from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content

from embedctl_console.actions import (
    CHART,
    EVERYWHERE,
    NO_KEYMAP,
    OPENED,
    SCREENS,
    Action,
    actions_of,
    bindings_of,
    key_of,
)
from embedctl_console.keymap import FIXED_KEYS
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.themes import THEMES
from embedctl_console.widgets.text import Text, hanging

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.paths import Paths
    from embedctl_console.actions import Keymap
    from embedctl_console.state import ConsoleState, Topic

Row = tuple[str, str, str]

_EMPTY: Final[Row] = ("", "", "")

_WORDS: Final = (
    ("active", "the backend that requests go to unless they name one; it is remembered"),
    ("claimed", "memory that a backend says it holds (torch's reserved bytes, Ollama's size_vram)"),
    (
        "measured",
        "memory that the driver counts for the backend's processes; what really is gone",
    ),
    ("probe", "one short text, embedded every few seconds to see how fast a backend answers now"),
    ("p50, p95", "half, and 95 of 100, of the last minute's requests were at least as fast"),
    ("canary", "known texts embedded after every load; a backend that gets them wrong is not used"),
    ("switch", "load the other backend, check it, send requests there, then unload the old one"),
    ("check", "whether both backends give the same vectors, for all that was tried; the evidence is kept"),
    ("trial", "the other backend works on a share of the live requests before the switch"),
    ("pool", "memory that CPU and GPU share, as on a DGX Spark; GPU and host figures are never added up"),
    ("n/a", "this machine does not tell; never shown as 0"),
)


class HelpScreen(ConsoleScreen):
    """One page to scroll."""

    WHERE = "help"
    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("help")]

    def __init__(self) -> None:
        super().__init__()
        self._shown: tuple[Keymap, int] | None = None
        """The keys that the page names, and its width; None until there is one."""

    def compose_body(self) -> ComposeResult:
        with VerticalScroll(id="help-scroll"):
            yield Text(id="help")

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        self._show(state.keymap)

    def on_resize(self) -> None:
        state = self.console.state
        if state is not None:
            self._show(state.keymap)

    def _show(self, keymap: Keymap) -> None:
        width = self.app.size.width - 4
        if self._shown is None or self._shown[0] is not keymap or self._shown[1] != width:
            self._shown = keymap, width
            self.query_one("#help", Text).show(help_text(self.console.engine.paths, keymap, width))


def help_text(paths: Paths, keymap: Keymap = NO_KEYMAP, width: int = 120) -> Content:
    """The whole page, wrapped at `width`."""
    return Content("\n").join(
        hanging(Content.assemble((f"  {word:<12}", style)), text, width)
        if text
        else Content.assemble((word, style))
        for word, text, style in _rows(paths, keymap)
    )


def _rows(paths: Paths, keymap: Keymap) -> list[Row]:
    """A word or key, what it means, and the style of the word; a heading means nothing further."""
    rows: list[Row] = [_heading("Keys everywhere"), *_keys(actions_of(EVERYWHERE, keymap))]
    for name, title in (*SCREENS, *OPENED, (CHART, "A chart with the focus")):
        if own := actions_of(name, keymap):
            rows += [_EMPTY, _heading(title), *_keys(own)]
    rows += [_EMPTY, _heading("Words"), *(_line(word, meaning) for word, meaning in _WORDS)]
    rows += [_EMPTY, _heading("Where things lie")]
    rows += [
        _line("settings", str(paths.config_file)),
        _line("history", str(paths.database)),
        _line("exports", str(paths.exports_dir)),
        _line("log", str(paths.log_dir)),
        _line("models", "the Hub's own cache (HF_HOME)"),
    ]
    names = ", ".join(theme.name for theme in THEMES)
    themes = key_of("everywhere.theme", keymap)
    rows += [
        _EMPTY,
        _heading("Looks"),
        _line(
            "colours", f"{themes} changes them; embedctl config set console.theme NAME keeps one of {names}"
        ),
        _line(
            "charts",
            "embedctl config set console.charset block (or ascii), if your font lacks the dots",
        ),
        _line("no colour", "NO_COLOR=1 embedctl"),
        _line("own keys", '[console.keys] in the settings file, such as models.verify = "w"'),
        _line("fixed keys", FIXED_KEYS),
    ]
    return rows


def _keys(actions: Iterable[Action]) -> list[Row]:
    return [(action.keys_shown, action.help, "bold $footer-key-foreground") for action in actions]


def _line(word: str, text: str) -> Row:
    return word, text, "bold"


def _heading(text: str) -> Row:
    return text, "", "bold $primary"
