"""Prints how long keys take on a line of 960 bytes a second (9,600 baud), and what an idle screen sends.

Run it by hand: `python -m tests.console.bench_slow_line [always|auto|never] [width] [height] [bytes/s]`. The
scripted engine publishes twice a second. Times are from the key until the screen shows the text looked for;
the terminal answers questions when they have come through, as any does.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.support.line import Line, on_line

ROOT = Path(__file__).parents[2]
CHILD = """
import sys, threading, time
sys.path.insert(0, {root!r})
from embedctl_console.app import ConsoleApp
from tests.support.fake_engine import FakeEngine

engine = FakeEngine()

def publish():
    while True:
        time.sleep(0.5)
        engine.tick(0.5)

threading.Thread(target=publish, daemon=True).start()
app = ConsoleApp(lambda: engine, clock=engine.clock, slow={slow})
if {never}:
    app.pace.take_setting("never")
app.run()
"""
KEYS = (
    ("2", "tokenizer.json"),
    ("9", "Keys everywhere"),
    ("7", "torch"),
    ("1", "Memory pool"),
    ("s", "Switch from"),
    ("\x1b", "Memory pool"),
    ("4", "15m"),
)
_TICK_S = 0.05


def take_for(line: Line, seconds: float, rate: float, text: str = "") -> tuple[float, int]:
    """Take `rate` bytes a second for so long or until `text` has come; the seconds and bytes that took."""
    begin, before, due = time.monotonic(), line.taken, 0.0
    while (passed := time.monotonic() - begin) < seconds and not (text and text in line.grid.text):
        due = min(due + rate * _TICK_S, rate)  # what was not used does not add up
        if due >= 1 and (data := line.take(int(due), patience=0.0)):
            due -= len(data)
        time.sleep(_TICK_S)
    return passed, line.taken - before


def main() -> None:
    mode, width, height, rate = (*sys.argv[1:], *("always", "80", "24", "960")[len(sys.argv) - 1 :])
    code = CHILD.format(root=str(ROOT), slow=mode == "always", never=mode == "never")
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    pace = float(rate)
    command = [sys.executable, "-c", code]
    print(f"slow line {mode}, {width}x{height}, {rate} bytes a second")
    with on_line(command, environment, columns=int(width), rows=int(height)) as line:
        seconds, size = take_for(line, 120.0, pace, "Memory pool")
        print(f"{'start':>8}: {seconds:6.1f} s, {size:,} bytes")
        take_for(line, 20.0, pace)
        for key, text in KEYS:
            line.press(key.encode())
            seconds, size = take_for(line, 90.0, pace, text)
            print(f"{key!r:>8}: {seconds:6.1f} s, {size:,} bytes until {text!r}")
            take_for(line, 8.0, pace)
        line.press(b"1")
        take_for(line, 20.0, pace)
        _, size = take_for(line, 20.0, pace)
        print(f"    idle: {size / 20:,.0f} bytes a second")


if __name__ == "__main__":
    main()
