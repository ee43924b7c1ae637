"""What stands on the screen, for another program: by the terminal's clipboard, and as a file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from embedctl.errors import EmbedctlError
from embedctl.files import whole_file
from embedctl_console.pace import strips_of
from embedctl_console.tasks import run_in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from embedctl_console.app import ConsoleApp

FILE: Final = "copied.txt"


async def copy(app: ConsoleApp) -> None:
    """Copy the text that is marked with the mouse, else the whole screen.

    Terminals are asked by OSC 52 and never say whether they did it (tmux, by default, does not); the file is
    there whatever they do.
    """
    text = app.screen.get_selected_text() or "\n".join(strip.text.rstrip() for strip in strips_of(app))
    file = app.engine.paths.exports_dir / FILE
    app.copy_to_clipboard(text)
    try:
        await run_in_thread(_write, file, text)
    except EmbedctlError as error:
        app.report(error)
        return
    lines = text.count("\n") + 1
    app.notify(
        f"to the clipboard, if your terminal allows it, and to {file}",
        title=f"{lines} line{'s' * (lines > 1)} copied", markup=False,
    )  # fmt: skip


def _write(file: Path, text: str) -> None:
    with whole_file(file) as part:
        part.write_text(text + "\n", encoding="utf-8")
