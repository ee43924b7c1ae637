"""The Settings screen: made from the schema, changes written to the file with its comments kept."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual.widgets import Input

from embedctl.events import ConnectionChanged
from embedctl.settings import Settings, load_settings, setting_names
from embedctl_console.screens.settings_text import setting_rows
from embedctl_console.widgets.table import RowTable
from tests.support.console import press, running, screen_text, settle
from tests.support.fake_engine import FakeEngine


def rows(**changes: object) -> dict[str, object]:
    now = Settings()
    options: dict[str, object] = {"file_says": {}, "fresh": now, "variables": {}} | changes
    return {row.key: row for row in setting_rows(now, **options)}  # type: ignore[arg-type]


class TestRows:
    def test_every_setting_has_one(self) -> None:
        wanted = {f"{section}.{name}" for section, names in setting_names().items() for name in names}
        assert set(rows()) == wanted

    @pytest.mark.parametrize(
        ("key", "allowed"),
        [
            ("native.batch_size", "a whole number from 1 to 4096"),
            ("native.max_tokens", "a whole number from 8, or none"),
            ("native.load_timeout_s", "a number above 0"),
            ("engine.unload_after_switch", "true or false"),
            ("console.charset", "one of braille, block, ascii"),
            ("alerts.conditions", "a list of: down, hung, on the CPU, throttled, slow"),
        ],
    )
    def test_what_is_allowed_comes_from_the_schema(self, key: str, allowed: str) -> None:
        assert rows()[key].allowed == allowed  # type: ignore[attr-defined]

    def test_where_a_value_comes_from(self) -> None:
        found = rows(
            file_says={"native": {"dtype": "float32"}},
            variables={"EMBEDCTL_NATIVE__DEVICE": "cpu", "EMBEDDING_BACKEND": "ollama"},
        )
        sources = {key: found[key].source for key in ("native.dtype", "native.device", "native.threads")}  # type: ignore[attr-defined]
        assert sources == {"native.dtype": "file", "native.device": "variable", "native.threads": "default"}
        assert found["engine.backend"].variable == "EMBEDDING_BACKEND"  # type: ignore[attr-defined]

    def test_a_change_that_waits_for_a_restart_is_shown(self) -> None:
        fresh = Settings.model_validate({"native": {"batch_size": 64}})
        assert rows(fresh=fresh)["native.batch_size"].next_value == "64"  # type: ignore[attr-defined]

    def test_what_the_demo_brings_along_is_its_own_and_waits_for_nothing(self) -> None:
        brought = {"native": {"device": "cuda:0", "batch_size": 64}}
        now, fresh = Settings.model_validate(brought), Settings.model_validate({"native": {"batch_size": 48}})
        written = {"native": {"batch_size": 48}}
        for demo, device in ((True, ("demo", "")), (False, ("default", "auto"))):
            found = {row.key: row for row in setting_rows(now, written, fresh, {}, demo=demo)}
            assert (found["native.device"].source, found["native.device"].next_value) == device
            batch = found["native.batch_size"]  # the user's own word in the file stands in the demo too
            assert (batch.source, batch.next_value) == ("file", "48")
            assert found["native.threads"].source == "default"

    def test_a_webhook_is_shown_without_its_path(self) -> None:
        now = Settings.model_validate({"alerts": {"webhook": "https://hooks.example/T0/secret"}})
        (row,) = [row for row in setting_rows(now, {}, now, {}) if row.key == "alerts.webhook"]
        assert row.value == "https://hooks.example/…"


async def test_a_change_goes_to_the_file_and_keeps_its_comments(tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    file = engine.paths.config_file
    file.write_text('# ours\n[native]\ndevice = "cpu"  # no GPU here\n', encoding="utf-8")
    async with running(engine) as pilot:
        await press(pilot, "8", *["down"] * 6, "enter", *"9999")
        assert "less than or equal to 4096" in screen_text(pilot)
        await press(pilot, "enter")
        assert "9999" not in file.read_text(encoding="utf-8")
        await press(pilot, *["backspace"] * 2, "enter")
        assert "native.batch_size: from the next start of embedctl on" in screen_text(pilot)
        assert "32 → 99" in screen_text(pilot)
        text = file.read_text(encoding="utf-8")
        assert "batch_size = 99" in text
        assert "# no GPU here" in text
        await press(pilot, "delete")
        assert "batch_size" not in file.read_text(encoding="utf-8")


async def test_theme_and_keys_are_taken_up_at_once(tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    async with running(engine) as pilot:
        await press(pilot, "9", "8")
        screen = pilot.app.screen
        keys = '{"everywhere.benchmark" = "f5", "everywhere.show-help" = "f1"}'
        await screen._write_on_thread("console.theme", "embedctl-light")  # type: ignore[attr-defined]
        await screen._write_on_thread("console.keys", keys)  # type: ignore[attr-defined]
        await settle(pilot)
        assert pilot.app.theme == "embedctl-light"
        assert load_settings(engine.paths).console.keys["everywhere.benchmark"] == "f5"
        assert "f5 Benchmark" in screen_text(pilot)
        assert "f1 Help" in screen_text(pilot)
        await press(pilot, "f1")
        assert "f5          measure both backends" in screen_text(pilot)
        await press(pilot, "8")
        names = [f"{section}.{name}" for section, names in setting_names().items() for name in names]
        screen.query_one(RowTable).move_cursor(row=names.index("console.keys"))
        await press(pilot, "enter")
        pilot.app.screen.query_one(Input).value = '{"models.verify" = "s"}'
        await settle(pilot)
        assert "models.verify: s is the key of everywhere.switch" in screen_text(pilot)


async def test_a_settings_file_that_is_slow_to_read_keeps_no_key_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, may_answer = FakeEngine(home=tmp_path), threading.Event()
    async with running(engine) as pilot:
        await press(pilot, "8", *["down"] * 6)
        monkeypatch.setattr("embedctl.settings_file.changed_text", lambda *_: (may_answer.wait(30), "")[1])
        await pilot.press("enter", *"77", "enter")
        await pilot.pause()
        field = pilot.app.screen.query_one(Input)
        assert (field.value, field.disabled) == ("77", True), "it waits, and takes no more than was meant"
        monkeypatch.undo()
        may_answer.set()
        await settle(pilot)
        assert "batch_size = 77" in engine.paths.config_file.read_text(encoding="utf-8")


async def test_another_machines_settings_cannot_be_changed_from_here(tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    async with running(engine) as pilot:
        await press(pilot, "8")
        engine.publish(ConnectionChanged(True, "the service (PID 7) on spark", place="spark"))
        await settle(pilot)
        assert "settings of spark" in screen_text(pilot)
        await press(pilot, "enter")
        assert len(pilot.app.screen_stack) == 1


async def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    engine = FakeEngine(home=tmp_path)
    engine.paths.config_file.write_text("[native\n", encoding="utf-8")
    async with running(engine) as pilot:
        await press(pilot, "8")
        assert "is not valid TOML" in screen_text(pilot)
