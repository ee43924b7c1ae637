"""Every action of the console, once: its key, its words, where and when it can be used.

Key bindings, the line of keys at the bottom, the command palette, the Help screen and what the user's key map
may change are made from this list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from textual.binding import Binding

from embedctl.records import BackendState, FileState
from embedctl_console.action import EVERYWHERE, Action, Keymap, key_name
from embedctl_console.history_actions import CHART_ACTIONS, HISTORY_ACTIONS, REPLAY_ACTIONS

if TYPE_CHECKING:
    from embedctl_console.state import ConsoleState

__all__ = [
    "ACTIONS",
    "CHART",
    "EVERYWHERE",
    "NO_KEYMAP",
    "OPENED",
    "SCREENS",
    "Action",
    "Keymap",
    "actions_of",
    "bindings_of",
    "is_available",
    "key_name",
    "key_of",
]

SCREENS: Final = (
    ("dashboard", "Dashboard"),
    ("models", "Models"),
    ("benchmarks", "Benchmarks"),
    ("history", "History"),
    ("check", "Check"),
    ("quality", "Quality"),
    ("doctor", "Doctor"),
    ("settings", "Settings"),
    ("help", "Help"),
    ("playground", "Playground"),
)
"""Names of the screens with their titles, in the order of the keys 1 to 9 and 0."""

OPENED: Final = (
    ("reading", "A text that was opened"),
    ("distribution", "Distribution of a run"),
    ("replay", "Replay of a last minute"),
)
"""Screens that another one opens, with what Help calls them."""

CHART: Final = "chart"
"""Where the actions of a chart with the focus are; the Dashboard and History have charts."""


def _job_runs(state: ConsoleState) -> bool:
    return state.running() is not None


def _some_backend_unloaded(state: ConsoleState) -> bool:
    usable = (BackendState.UNLOADED, BackendState.FAILED, BackendState.UNKNOWN)
    return any(status.state in usable for status in state.status.backends)


def _some_backend_loaded(state: ConsoleState) -> bool:
    return state.any_ready


def _no_benchmark_runs(state: ConsoleState) -> bool:
    return state.running("benchmark") is None


def _no_check_runs(state: ConsoleState) -> bool:
    return state.running("check") is None


def _no_quality_runs(state: ConsoleState) -> bool:
    return state.running("quality") is None


def _model_incomplete(state: ConsoleState) -> bool:
    return _model_idle(state) and not (state.model is not None and state.model.complete)


def _model_here(state: ConsoleState) -> bool:
    files = state.model.files if state.model else ()
    return _model_idle(state) and any(file.state is not FileState.MISSING for file in files)


def _model_idle(state: ConsoleState) -> bool:
    return state.running("download", "verify", "remove") is None


def _hub_is_asked(state: ConsoleState) -> bool:
    return state.hub_asked is not None


def _ollama_lacks_model(state: ConsoleState) -> bool:
    ollama = state.backend("ollama")
    missing = ollama is not None and ollama.state is BackendState.MODEL_MISSING
    return missing and state.running("pull") is None


NO_KEYMAP: Final[Keymap] = {}

ACTIONS: Final = (
    Action("cancel", "x", "Cancel", "cancel the job that runs", when=_job_runs),
    Action("switch", "s", "Switch", "make the other backend the active one, after a look at the plan"),
    Action("check", "k", "Check", "ask whether it is safe to switch", when=_no_check_runs),
    Action("benchmark", "b", "Benchmark", "measure both backends", when=_no_benchmark_runs),
    Action(
        "load", "l", "Load", "load the backend that has the focus, else native", when=_some_backend_unloaded
    ),
    Action("unload", "u", "Unload", "unload the backend that has the focus", when=_some_backend_loaded),
    *(
        Action(
            f"show-{name}",
            str(number % 10),
            title,
            f"open {title}",
            action=f"show('{name}')",
            shown=False,
        )
        for number, (name, title) in enumerate(SCREENS, 1)
    ),
    Action(
        "theme",
        "t",
        "Theme",
        "change the colours: dark, light, high contrast, Okabe–Ito, the terminal's",
        shown=False,
    ),
    Action(
        "copy",
        "ctrl+y",
        "Copy",
        "copy the text marked with the mouse, else the screen; also to a file",
        action="copy_screen",
        shown=False,
    ),
    Action(
        "slow-line",
        "ctrl+l",
        "Slow line",
        "draw less for a slow line, or again all at once",
        action="slow_line",
        shown=False,
    ),
    Action(
        "palette", "ctrl+p", "Palette", "find any action by its name", action="command_palette", shown=False
    ),
    Action("help", "question_mark", "Help", "explain keys and words", action="show('help')"),
    Action("quit", "q", "Quit", "stop the workers and leave", action="quit"),
    Action(
        "quit-now", "ctrl+c", "Quit", "the same, from any dialog", action="quit", shown=False, priority=True
    ),
    # Dashboard
    Action("models", "d", "Models", "open Models, to download", "dashboard", "app.show('models')"),
    Action("chart", "m", "Chart", "choose the charts: all that have room, or one", "dashboard", "next_chart"),
    Action(
        "refresh", "r", "Look", "look at every backend again", "dashboard", "refresh_backends", shown=False
    ),
    # Models
    Action(
        "download",
        "d,enter",
        "Download",
        "fetch what is missing, and verify it",
        "models",
        when=_model_incomplete,
    ),
    Action("verify", "v", "Verify", "hash every file and compare with the Hub", "models", when=_model_here),
    Action("remove", "r", "Remove", "delete the model's files, after a question", "models", when=_model_here),
    Action("pull", "p", "Pull", "have Ollama pull its copy", "models", when=_ollama_lacks_model),
    Action("stop", "escape", "Stop", "wait no longer for what the Hub says", "models", when=_hub_is_asked),
    # Benchmarks
    Action("open", "enter", "Open", "show the run under the cursor", "benchmarks", "open_run", shown=False),
    Action("mark", "space", "Mark", "mark a run for comparison (two at most)", "benchmarks"),
    Action("compare", "c", "Compare", "lay the two marked runs side by side", "benchmarks"),
    Action("draw", "d", "Draw", "draw how the latencies of this run are spread", "benchmarks"),
    Action(
        "preset",
        "p",
        "Preset",
        "measure both backends, after a choice of how much: quick, standard, thorough",
        "benchmarks",
        when=_no_benchmark_runs,
    ),
    Action(
        "resume",
        "r",
        "Resume",
        "go on with the unfinished run under the cursor",
        "benchmarks",
        when=_no_benchmark_runs,
    ),
    # Check
    Action(
        "open",
        "enter",
        "Evidence",
        "show what the finding under the cursor rests on",
        "check",
        "open_finding",
    ),
    Action("worst", "w", "Worst texts", "show the texts with the lowest cosines", "check"),
    # Quality
    Action("open", "enter", "Evidence", "show the study under the cursor in full", "quality", "open_study"),
    Action(
        "measure",
        "m",
        "Measure",
        "search known questions with both backends",
        "quality",
        when=_no_quality_runs,
    ),
    Action("worst", "w", "Worst queries", "show the queries that lost most", "quality"),
    # Doctor
    Action("again", "r", "Run again", "look at everything again", "doctor"),
    Action("stop", "escape", "Stop", "wait no longer for what is being looked at", "doctor"),
    # Settings
    Action("edit", "enter", "Change", "change the setting under the cursor", "settings", "edit_setting"),
    Action(
        "unset",
        "delete,backspace",
        "Default",
        "take the setting out of the file: the default holds",
        "settings",
    ),
    # Playground
    Action(
        "run", "ctrl+r", "Embed", "embed the texts, one a line, and show what becomes of them", "playground"
    ),
    Action("leave", "escape", "Leave", "stop what runs, or leave the texts to other keys", "playground"),
    Action("edit", "e,enter", "Type", "type on in the texts", "playground"),
    Action(
        "view",
        "v,f2",
        "View",
        "go to the next view: pieces, vectors, cosines, passages",
        "playground",
        "next_view",
    ),
    Action(
        "other",
        "o,f3",
        "Other",
        "show cosines and passages by the other backend",
        "playground",
        "other_backend",
    ),
    Action("read", "r,f4", "Read", "read the passages that were found in full", "playground"),
    Action("passages", "p,ctrl+o", "Passages", "search the passages of a file of yours", "playground"),
    Action(
        "load",
        "l",
        "Load",
        "load the first backend that is not loaded",
        "playground",
        "load_missing",
        when=_some_backend_unloaded,
    ),
    # Screens that another one opens
    Action("back", "escape,backspace", "Back", "back to the list", "reading"),
    Action("back", "escape,backspace", "Back", "back to the runs", "distribution"),
    Action(
        "form",
        "g",
        "Form",
        "draw the share that was at least as fast, or a histogram",
        "distribution",
        "next_form",
    ),
    *HISTORY_ACTIONS,
    *REPLAY_ACTIONS,
    *CHART_ACTIONS,
)


def actions_of(where: str, keymap: Keymap = NO_KEYMAP) -> tuple[Action, ...]:
    """The actions of one screen, or those that work everywhere, with the keys of `keymap`."""
    return tuple(action.under(keymap) for action in ACTIONS if action.where == where)


def key_of(action_id: str, keymap: Keymap = NO_KEYMAP) -> str:
    """The first key of an action as it is printed, for sentences that name it."""
    action = next(action for action in ACTIONS if action.id == action_id).under(keymap)
    return key_name(action.key.split(",")[0])


def bindings_of(where: str) -> list[Binding]:
    """Textual's bindings for `where`."""
    return [action.binding() for action in actions_of(where)]


def is_available(where: str, textual_action: str, state: ConsoleState | None) -> bool:
    """Whether an action of `where` can be used now; actions that the list does not know always can.

    Without a state (the engine still opens) only those that need none can.
    """
    found = [action for action in actions_of(where) if action.called == textual_action]
    if not found:
        return True
    if state is None:
        return textual_action in ("quit", "theme", "command_palette")
    return any(action.when(state) for action in found)
