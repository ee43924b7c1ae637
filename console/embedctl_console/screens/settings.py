"""The Settings screen: every setting with its value and where that comes from; changes go to the file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import DataTable, Input

from embedctl.errors import EmbedctlError, SettingsError
from embedctl_console.actions import ACTIONS, bindings_of
from embedctl_console.screens.base import ConsoleScreen
from embedctl_console.screens.notices import dialog_keys
from embedctl_console.screens.settings_text import (
    AT_ONCE,
    SettingRow,
    about_text,
    columns,
    detail_text,
    row_cells,
    setting_rows,
)
from embedctl_console.state import Topic
from embedctl_console.tasks import run_in_thread
from embedctl_console.widgets.table import RowTable
from embedctl_console.widgets.text import Text, failure_text

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from embedctl.settings import Settings
    from embedctl_console.state import ConsoleState


class SettingsScreen(ConsoleScreen):
    """A table made from the settings' schema; enter changes the one under the cursor."""

    WHERE = "settings"
    CSS_PATH = "settings.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("settings")]

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[SettingRow, ...] = ()
        self._problem: EmbedctlError | None = None

    def compose_body(self) -> ComposeResult:
        yield Text(id="about")
        yield RowTable(id="settings")
        yield Text(id="detail")

    def on_mount(self) -> None:
        self._table.focus()

    @property
    def _table(self) -> DataTable[Content]:
        return self.query_one("#settings", DataTable)

    def show_state(self, state: ConsoleState, changed: Topic) -> None:
        if changed & Topic.CONNECTION:
            self._reread()

    def on_resize(self) -> None:
        self._show()

    def _reread(self) -> None:
        self.run_worker(self._load(), group="settings", exclusive=True)

    async def _load(self) -> None:
        self._problem = None
        try:
            self._rows = await run_in_thread(self._collect)
        except EmbedctlError as error:
            self._problem = error
        self._show()

    def _collect(self) -> tuple[SettingRow, ...]:
        """[slow] Reads the settings file.

        Raises:
            SettingsError: The file is not TOML, or a value in it is not allowed.
        """
        from embedctl.settings import load_settings

        engine = self.console.engine
        fresh: Settings = load_settings(engine.paths)
        file = engine.paths.config_file
        says: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        at_once = [key.removeprefix("console.") for key in AT_ONCE]
        ours = {name: getattr(fresh.console, name) for name in at_once}
        now = engine.settings.model_copy(update={"console": engine.settings.console.model_copy(update=ours)})
        return setting_rows(now, says, fresh, os.environ, foreign=bool(self._place), demo=self.console.demo)

    @property
    def _place(self) -> str:
        state = self.console.state
        return state.connection.place if state is not None and state.connection is not None else ""

    def _restart(self, key: str = "") -> str:
        """When a change to a setting is taken up."""
        state = self.console.state
        if key == "console.charset" or state is None or state.connection is None:
            return "from the next start of embedctl on"
        return "from the next start of the service on"

    def _show(self) -> None:
        about = self.query_one("#about", Text)
        table = self._table
        if self._problem is not None:
            about.show(failure_text(self._problem.what, self._problem.why, self._problem.remedy))
            return
        file = str(self.console.engine.paths.config_file)
        about.show(about_text(self._rows, file, restart=self._restart(), place=self._place))
        cursor, chosen = table.cursor_row, columns(self.app.size.width - 2)
        table.clear(columns=True)
        for name, width in chosen:
            table.add_column(name, width=width)
        for row in self._rows:
            table.add_row(*row_cells(row, [width for _, width in chosen]), key=row.key)
        table.move_cursor(row=cursor)
        self._show_detail()

    def _under_cursor(self) -> SettingRow | None:
        row = self._table.cursor_row
        return self._rows[row] if 0 <= row < len(self._rows) else None

    @on(DataTable.RowHighlighted)
    def _show_detail(self) -> None:
        row = self._under_cursor()
        if row is not None:
            text = detail_text(row, self.app.size.width - 2, restart=self._restart(row.key))
            self.query_one("#detail", Text).show(text)
            self.refresh_bindings()

    # Actions

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        row = self._under_cursor() if action in ("edit_setting", "unset") else None
        if action == "edit_setting":
            return row is not None and row.source != "service"
        if action == "unset":
            return row is not None and row.source == "file"
        return super().check_action(action, parameters)

    @on(DataTable.RowSelected)
    def _row_selected(self) -> None:
        """A click on the row under the cursor."""
        if self.check_action("edit_setting", ()):
            self.action_edit_setting()

    def action_edit_setting(self) -> None:
        row = self._under_cursor()
        if row is not None:
            self.app.push_screen(EditDialog(row, self._check_value), lambda text: self._write(row.key, text))

    def action_unset(self) -> None:
        row = self._under_cursor()
        if row is not None:
            self._write(row.key, "none")

    def _check_value(self, key: str, text: str) -> None:
        """[slow] Reads the settings file.

        Raises:
            SettingsError: The value is not allowed.
        """
        from embedctl.settings_file import changed_text

        changed = changed_text(self.console.engine.paths.config_file, key, text)
        if key == "console.keys":
            _check_keys(changed)

    def _write(self, key: str, text: str | None) -> None:
        if text is not None:
            self.run_worker(self._write_on_thread(key, text), group="write", exclusive=True)

    async def _write_on_thread(self, key: str, text: str) -> None:
        from embedctl.settings import load_settings
        from embedctl.settings_file import set_value

        paths = self.console.engine.paths
        try:
            await run_in_thread(set_value, paths.config_file, key, text)
            fresh = await run_in_thread(load_settings, paths)
        except EmbedctlError as error:
            self.console.report(error)
            return
        if key == "console.theme":
            self.console.take_theme(fresh.console.theme)
        elif key == "console.keys":
            self.console.take_keys(fresh.console.keys)
        elif key == "console.slow_line":
            self.console.pace.take_setting(fresh.console.slow_line)
        self._reread()


def _check_keys(changed: str) -> None:
    """Raises:
    SettingsError: An entry of `[console.keys]` names no action, no key, or the key of another action.
    """
    from embedctl.settings import ConsoleSettings
    from embedctl_console.keymap import checked

    section = tomllib.loads(changed).get("console", {})
    _, problems = checked(ConsoleSettings(**section).keys, ACTIONS)
    if problems:
        raise SettingsError("console.keys cannot be used", why="\n".join(problems))


class EditDialog(ModalScreen[str | None]):
    """One setting's new value, checked as it is typed; gives None when nothing is to be changed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Leave as it is", id="edit.cancel"),
    ]

    def __init__(self, row: SettingRow, check: Callable[[str, str], None]) -> None:
        """
        Args:
            check: [slow] Raises `SettingsError` for a key and a value that is not allowed.
        """
        super().__init__(id="edit-dialog")
        self._row = row
        self._check = check

    def compose(self) -> ComposeResult:
        row = self._row
        hidden = "…" in row.value  # a part that is not shown must not be written back
        with Vertical(classes="dialog"):
            yield Text(Content.assemble((row.key, "bold")), classes="dialog-title")
            yield Text(Content(row.description or "no description"))
            yield Text(
                Content.assemble(("allowed  ", "$text-muted"), f"{row.allowed} · default {row.default}")
            )
            yield Input("" if hidden else row.next_value or row.value, id="value", select_on_focus=True)
            yield Text(id="verdict")
            yield dialog_keys(("enter", "writes it to the file"), ("escape", "leaves it as it is"))

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self.run_worker(self._checked(event.value), group="check", exclusive=True)

    async def _checked(self, text: str) -> bool:
        """Say whether the value can be used; the last one typed, since each look ends the one before."""
        verdict = self.query_one("#verdict", Text)
        try:
            await run_in_thread(self._check, self._row.key, text)
        except SettingsError as error:
            verdict.show(Content.assemble(("✗ ", "$text-error"), error.why or error.what))
            return False
        verdict.show(Content.assemble(("✓ ", "$text-success"), "can be used"))
        return True

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.input.disabled = True  # what is typed from now on is none of the value
        self.run_worker(self._take(event.input), group="check", exclusive=True)

    async def _take(self, field: Input) -> None:
        allowed = await self._checked(field.value)
        field.disabled, field.select_on_focus = False, False  # the next key is a correction
        field.focus()
        if allowed and self.is_active:
            self.dismiss(field.value)

    def action_cancel(self) -> None:
        self.dismiss(None)
