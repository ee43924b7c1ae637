"""Copying: what stands on the screen goes to the clipboard and to a file, and no notice takes the focus."""

from __future__ import annotations

from pathlib import Path

from textual.geometry import Offset
from textual.selection import Selection

from embedctl_console.widgets.text import Text
from tests.support.console import press, running, screen_text
from tests.support.fake_engine import FakeEngine


async def test_the_screen_or_what_is_marked_goes_to_the_clipboard_and_to_a_file(home: Path) -> None:
    engine = FakeEngine(home=home)
    file = engine.paths.exports_dir / "copied.txt"
    async with running(engine, (80, 24)) as pilot:
        app, focused = pilot.app, pilot.app.focused
        shown = screen_text(pilot)
        await press(pilot, "ctrl+y")
        assert app.clipboard == shown
        assert file.read_text() == shown + "\n"
        (notice,) = app._notifications
        assert (notice.title, str(file) in notice.message) == ("24 lines copied", True)
        assert app.focused is focused, "the notice takes no focus"
        await press(pilot, "2")
        assert "tokenizer.json" in screen_text(pilot), "nor the keys"

        await press(pilot, "9")
        page = app.screen.query_one("#help", Text)
        app.screen.selections = {page: Selection(Offset(0, 0), Offset(15, 0))}
        await press(pilot, "ctrl+y")
        assert app.clipboard == "Keys everywhere"
        assert file.read_text() == "Keys everywhere\n"

        file.unlink()
        file.mkdir()
        await press(pilot, "ctrl+y")
        assert "could not be written" in [notice.title for notice in app._notifications][-1]
