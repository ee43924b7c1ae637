"""A terminal at the end of a slow line: it takes what the program writes in pieces, and only when told.

So a test counts bytes in place of seconds: what a line of 960 bytes a second carries late is what comes after
many bytes.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tests.support.grid import Grid

QUESTION = b"\x1b[6n"
"""Asks the terminal where its cursor is: it answers once it has shown everything that came before."""
_ANSWER = b"\x1b[1;1R"
_PATIENCE_S = 30.0


class Line:
    def __init__(self, master: int, columns: int, rows: int) -> None:
        self._master = master
        self.grid = Grid(columns, rows)
        self._unread = b""
        """The last bytes that were taken: a text that is looked for may come in two pieces."""
        self.taken = 0
        """Bytes so far."""
        self.asked = 0
        """Questions so far that were not answered yet."""
        self.answers = True
        """Whether the terminal answers as soon as a question has come through."""

    def take(self, most: int = 4096, *, patience: float = _PATIENCE_S) -> bytes:
        """The next bytes, `most` at most; none if it has ended or writes nothing for so many seconds."""
        if not select.select([self._master], [], [], patience)[0]:
            return b""
        try:
            data = os.read(self._master, most)
        except OSError:  # the program has ended
            return b""
        self.taken += len(data)
        self.grid.feed(data)
        self.asked += (self._unread[-len(QUESTION) + 1 :] + data).count(QUESTION)
        self._unread = data[-len(QUESTION) :]
        if self.answers:
            self.answer()
        return data

    def answer(self) -> None:
        """Answer all questions that came through."""
        if self.asked:
            self.press(_ANSWER * self.asked)
            self.asked = 0

    def take_until(self, *texts: str, most: int) -> int:
        """Take until the screen shows all of `texts`, within `most` bytes; how many they were."""
        begin = self.taken
        while missing := [text for text in texts if text not in self.grid.text]:
            shown = f"{missing} not shown after {self.taken - begin:,} bytes:\n{self.grid.text}"
            assert self.taken - begin <= most, shown
            assert self.take(256), f"it has ended or fallen silent; {shown}"
        return self.taken - begin

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)


@contextmanager
def on_line(
    command: Sequence[str], env: Mapping[str, str], *, columns: int, rows: int, pass_fds: Sequence[int] = ()
) -> Iterator[Line]:
    """Run a program in such a terminal; it is killed in the end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
    program = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, pass_fds=pass_fds,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Line(master, columns, rows)
    finally:
        os.close(master)
        program.kill()
        program.wait()
