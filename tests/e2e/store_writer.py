"""Writes samples until it is killed, once per round; `test_store_kill.py` runs it and kills its children.

Reads from stdin one line per round, `<start second>`; forks a child for it (so that the imports are paid for
once) and prints the child's PID. The child opens the store, records one second after the other and prints
each second after its commit.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from embedctl.metrics import METRICS
from embedctl.records import Provenance, Sample
from embedctl.settings import HistorySettings
from embedctl.store import Store


def record(path: Path, second: int) -> None:
    now = second
    # Short retention, so that kills also meet roll-up and removal.
    store = Store.open(path, retention=HistorySettings(keep_10_seconds_d=0.01), clock=lambda: float(now))
    while True:
        notes = {"gpu_power": Provenance(source=f"source {now // 50}")}
        store.add_sample(Sample(float(now), dict.fromkeys(METRICS, 1.0), notes))
        os.write(1, f"{now}\n".encode())
        now += 1
        if now % 20 == 0:
            store.maintain()


def main() -> None:
    path = Path(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                record(path, int(line))
            except BaseException:
                traceback.print_exc()
            os._exit(3)
        os.write(1, f"pid {child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(1, b"ended\n" if os.WIFSIGNALED(status) else b"failed\n")


if __name__ == "__main__":
    main()
