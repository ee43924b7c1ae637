"""Prints how long the console takes from the start of its process to its first paint.

Run it by hand: `python tests/console/bench_start.py [runs]`. Every run is a process of its own in a terminal
of its own; the engine opens behind the first paint and so does not count.
"""

from __future__ import annotations

import os
import pty
import select
import statistics
import subprocess
import sys
import time

CHILD = """
import sys
from embedctl_console import main
def never():
    import time
    time.sleep(60)
sys.exit(main(never))
"""
MARK = b"looking at this machine"


def first_paint(timeout: float = 20.0) -> float:
    """Milliseconds from the start of a process until its terminal has received the opening screen."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    begin = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen = b""
    try:
        while MARK not in seen:
            left = begin + timeout - time.perf_counter()
            if left <= 0 or not select.select([ours], [], [], left)[0]:
                raise TimeoutError(f"no first paint within {timeout:g} s")
            seen += os.read(ours, 65536)
        return (time.perf_counter() - begin) * 1000
    finally:
        child.kill()
        child.wait()
        os.close(ours)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times = sorted(first_paint() for _ in range(count))
    print(
        f"first paint: median {statistics.median(times):.0f} ms, least {times[0]:.0f}, most {times[-1]:.0f}"
    )
