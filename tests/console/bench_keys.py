"""Prints how long the console takes to answer a key, at rest and while a benchmark runs.

Run it by hand: `python tests/console/bench_keys.py [keys] [width] [height]`. It starts the demo in a terminal
of its own with a fresh home, presses keys one after the other, and measures from the key to the first bytes
that only its answer contains: the line of screens is drawn when the screen changes, a card's frame when the
focus does. The benchmark's own work, and what else the machine does, runs on the same cores; so the times
stand once more without what the console waited for one (Linux counts that).
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
ANSWERS = {
    b"1": b"1 Dashboard",
    b"2": b"2 Models",
    b"3": b"3 Benchmarks",
    b"4": b"4 History",
    b"7": b"7 Doctor",
    b"\t": "╮".encode(),
}
"""By key, what its answer contains and nothing else that is drawn meanwhile."""
STARTED = b"cancels: "
_NOT_GIVEN_ON = ("COLUMNS", "LINES", "NO_COLOR")
_BETWEEN = (0.15, 0.6)
"""Seconds between an answer and the next key: at every moment of the half second between two samples."""


class Terminal:
    """A program in a terminal whose output is read as it comes."""

    def __init__(self, command: list[str], environment: dict[str, str], width: int, height: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self._last = b""

    def press(self, key: bytes) -> None:
        os.write(self._ours, key)

    def until(self, found: Callable[[bytes], bool], seconds: float) -> float:
        """Read until `found` says so of all that came since the call; returns the seconds that took.

        Raises:
            TimeoutError: It did not come.
        """
        began = time.perf_counter()
        seen = b""
        while (left := began + seconds - time.perf_counter()) > 0:
            if select.select([self._ours], [], [], left)[0]:
                seen += self._read()
                if found(seen):
                    return time.perf_counter() - began
        raise TimeoutError(f"nothing of the kind in {len(seen)} bytes: {seen[-300:]!r}")

    def drain(self, seconds: float) -> None:
        """Read and forget for a while."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            if select.select([self._ours], [], [], left)[0]:
                self._read()

    def _read(self) -> bytes:
        try:
            self._last = os.read(self._ours, 65536)
        except OSError:
            raise EOFError(f"the console ended with {self.child.wait()}: {self._last[-2000:]!r}") from None
        return self._last

    def cpu_seconds(self) -> float:
        """CPU time of the program itself, without that of its children."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def waited(self) -> float:
        """Seconds that the program's main thread and this one have waited for a core, as Linux counts it."""
        return (
            sum(
                int(Path(f"/proc/{who}/schedstat").read_text().split()[1])
                for who in (self.child.pid, "thread-self")
            )
            / 1e9
        )

    def end(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        with suppress(EOFError):  # its end of the terminal is closed
            while self.child.poll() is None:
                self.drain(0.2)
        self.child.wait()
        os.close(self._ours)


def answer_times(terminal: Terminal, count: int) -> tuple[list[bytes], list[tuple[float, float]]]:
    """The keys that were pressed on the screens in random order, `count` in all, and the milliseconds to each
    answer, with the part of them in which nothing of the console's could run because others had the cores."""
    chance = random.Random(7)
    where, keys, times = b"1", list[bytes](), list[tuple[float, float]]()
    for _ in range(count):
        choices = [key for key in ANSWERS if key != where and (key != b"\t" or where == b"1")]
        key = chance.choice(choices)
        terminal.drain(chance.uniform(*_BETWEEN))
        waited = terminal.waited()
        terminal.press(key)
        took = terminal.until(partial(contains, ANSWERS[key]), 10.0)
        keys.append(key)
        times.append((took * 1e3, (terminal.waited() - waited) * 1e3))
        where = where if key == b"\t" else key
    terminal.press(b"1")
    terminal.drain(1.0)
    return keys, times


def contains(answer: bytes, seen: bytes) -> bool:
    return answer in seen


def measured(terminal: Terminal, what: str, count: int) -> float:
    """Print the times and what they cost; returns their p95 in milliseconds."""
    cpu, began = terminal.cpu_seconds(), time.monotonic()
    keys, found = answer_times(terminal, count)
    times = np.array(found)  # (keys, 2)
    share = (terminal.cpu_seconds() - cpu) / (time.monotonic() - began)
    print(f"{what}, {count} keys: console {share:.1%} of one core; load {os.getloadavg()[0]:.1f}")
    for name, column in (("in all", times[:, 0]), ("less waiting for a core", times[:, 0] - times[:, 1])):
        p50, p95, longest = np.percentile(column, [50, 95, 100])
        print(f"  {name:<24} p50 {p50:6.1f} ms, p95 {p95:6.1f} ms, longest {longest:6.1f} ms")
    slowest = sorted(zip(times[:, 0] - times[:, 1], keys, strict=True), reverse=True)[:5]
    print("  the slowest:", ", ".join(f"{took:.0f} ms {ANSWERS[key].decode()}" for took, key in slowest))
    return float(np.percentile(times[:, 0] - times[:, 1], 95))


def main(count: int, width: int, height: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **{name: value for name, value in os.environ.items() if name not in _NOT_GIVEN_ON},
            "EMBEDCTL_HOME": home, "HF_HOME": home, "TERM": "xterm-256color", "COLORTERM": "truecolor",
        }  # fmt: skip
        command = [str(Path(sys.executable).with_name("embedctl")), "--demo"]
        subprocess.run([*command, "models", "download"], env=environment, check=True, capture_output=True)
        terminal = Terminal(command, environment, width, height)
        try:
            terminal.until(lambda seen: b"1 Dashboard" in seen, 60.0)
            terminal.press(b"l")
            terminal.until(lambda seen: re.search(rb"\xe2\x97\x8f ready", seen) is not None, 120.0)
            for key in (b"2", b"3", b"4", b"7", b"1"):  # each screen is imported when it is first shown
                terminal.press(key)
                terminal.drain(1.5)
            rest = measured(terminal, "at rest", count)
            terminal.press(b"b")
            terminal.drain(3.0)
            terminal.press(b"1")
            terminal.until(lambda seen: STARTED in seen, 20.0)
            busy = measured(terminal, "while a benchmark runs", count)
            print(f"p95 is {busy / rest:.2f} times that at rest")
        finally:
            terminal.end()


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:], *("60", "160", "50")[len(sys.argv) - 1 :])))
