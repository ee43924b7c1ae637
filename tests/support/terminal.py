"""A terminal that a test types into: tmux on a socket of its own, its screen polled with a deadline."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
"""Importing readline puts these two into a process's environment, and a program that finds them there no
longer looks at its terminal."""


class Terminal:
    def __init__(self, folder: Path) -> None:
        self._socket = folder / "tmux"
        self._exit_file = folder / "exit-code"

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._socket), *words],
            capture_output=True,
            text=True,
            check=True,
            env=_ENVIRONMENT,
        )
        return done.stdout

    def start(self, command: Sequence[str], env: Mapping[str, str], *, columns: int, rows: int) -> None:
        variables = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        size = ("-x", str(columns), "-y", str(rows))
        self._exit_file.unlink(missing_ok=True)
        # A shell keeps the exit code: tmux 3.3 now and then closes a pane without having noticed it.
        kept = ("sh", "-c", '"$@"; echo $? >"$0"', str(self._exit_file), *command)
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, *variables, *kept)
        self._tmux("set-option", "remain-on-exit", "on")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def click(self, words: str) -> None:
        """Click the middle of some words; of equal ones the last, as keys stand at the bottom."""
        column, row = self._place_of(words)
        self._mouse(f"<0;{column};{row}M", f"<0;{column};{row}m")

    def turn_wheel(self, words: str) -> None:
        """Turn the wheel up by one step over some words."""
        column, row = self._place_of(words)
        self._mouse(f"<64;{column};{row}M")

    def _place_of(self, words: str) -> tuple[int, int]:
        """The column and row, from 1 on, of the middle of the last such words on the screen."""
        for row, line in reversed([*enumerate(self.screen().split("\n"), 1)]):
            if (at := line.rfind(words)) >= 0:
                return at + len(words) // 2 + 1, row
        raise AssertionError(f"{words!r} is not on the screen:\n{self.screen()}")

    def _mouse(self, *reports: str) -> None:
        """Send what a terminal tells of its mouse, as programs ask for it (SGR, mode 1006)."""
        sent = "".join(f"\x1b[{report}" for report in reports)
        self._tmux("send-keys", "-H", *(f"{byte:02x}" for byte in sent.encode()))

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def wait_for(self, *texts: str, without: str = "", seconds: float = 30.0) -> str:
        """Wait until all of `texts` are on the screen and `without` is not; the failure shows the screen."""
        deadline = time.monotonic() + seconds
        while True:
            screen = self.screen()
            missing = [text for text in texts if text not in screen]
            if not missing and not (without and without in screen):
                return screen
            if time.monotonic() > deadline:
                what = f"{missing} did not appear" if missing else f"{without!r} did not go"
                raise AssertionError(f"{what} within {seconds:g} s:\n{screen}")
            time.sleep(0.1)  # another program's screen cannot be waited for in any other way

    def exit_code(self, seconds: float = 30.0) -> int:
        """Wait for the program's end; a signal is 128 and its number."""
        deadline = time.monotonic() + seconds
        while not (written := self._exit_file.read_text() if self._exit_file.exists() else ""):
            assert time.monotonic() < deadline, f"it still runs:\n{self.screen()}"
            time.sleep(0.1)
        return int(written)

    def _format(self, text: str) -> str:
        return self._tmux("display-message", "-p", text).strip()

    def pid(self) -> int:
        return int(self._format("#{pane_pid}"))

    def close(self) -> None:
        subprocess.run(["tmux", "-S", str(self._socket), "kill-server"], capture_output=True, check=False)


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    made = Terminal(folder)
    try:
        yield made
    finally:
        made.close()
