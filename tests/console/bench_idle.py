"""Prints the share of one core that an idle screen costs at two samples a second.

Run it by hand: `python tests/console/bench_idle.py [seconds] [width] [height] [key of the screen]
[seconds between deliveries]`; 4 seconds is what `--slow` has. The console draws into a terminal of its own,
which is read and thrown away; the scripted engine publishes, which is counted too.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from embedctl_console.bridge import FLUSH_EVERY

ROOT = Path(__file__).parents[2]
CHILD = """
import os, sys, threading, time
sys.path.insert(0, {root!r})
import embedctl_console.app as module
from tests.support.fake_engine import FakeEngine

engine = FakeEngine()

def publish():
    time.sleep(4.0)  # the start is not idle
    used, begin = time.process_time(), time.monotonic()
    while time.monotonic() - begin < {seconds}:
        time.sleep(0.5)
        engine.tick(0.5)
    share = (time.process_time() - used) / (time.monotonic() - begin)
    with open({report!r}, "w") as file:
        file.write(f"{{share:.4f}}")
    os._exit(0)

threading.Thread(target=publish, daemon=True).start()
module.ConsoleApp(lambda: engine, clock=engine.clock, flush_every={every}).run()
"""


def idle_share(
    seconds: float, width: int, height: int, report: Path, *, key: float = 1, every: float = FLUSH_EVERY
) -> tuple[float, int]:
    """Share of a core, and bytes written to the terminal per second."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    code = CHILD.format(root=str(ROOT), seconds=seconds, report=str(report), every=every)
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    sizes: list[int] = []
    started = time.monotonic()

    def drain() -> None:
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                return
            if time.monotonic() - started > 5.0:
                sizes.append(len(data))

    thread = threading.Thread(target=drain)
    thread.start()
    time.sleep(2.5)
    os.write(ours, f"{key:g}".encode())
    child.wait()
    thread.join()
    os.close(ours)
    return float(report.read_text()), int(sum(sizes) / (time.monotonic() - started - 5.0))


if __name__ == "__main__":
    import tempfile

    given = [float(word) for word in sys.argv[1:]]
    seconds, width, height, key, every = (*given, *(20.0, 120.0, 40.0, 1.0, FLUSH_EVERY)[len(given) :])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "share"
        share, rate = idle_share(seconds, int(width), int(height), report, key=key, every=every)
    print(
        f"screen {key:g}, idle at {width:g}x{height:g}, news every {every:g} s: "
        f"{share:.1%} of one core, {rate / 1000:.1f} KB/s out"
    )
