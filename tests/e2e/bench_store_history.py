"""How long windows of a month's recording take to read. Not a test: run it by hand.

    python tests/e2e/bench_store_history.py [folder]

Fills a history as 30 days at 1 Hz (2.6 million seconds) leave it behind under the default retention, with
every metric present and noisy (the worst case for size), and prints the timings of typical reads.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from embedctl.metrics import METRICS
from embedctl.records import Provenance, Sample
from embedctl.settings import HistorySettings
from embedctl.store import Store
from embedctl.store.recording import insert_rolled
from embedctl.store.thinning import Block, thin
from embedctl.store.tiers import COARSER, RAW
from embedctl.store.windows import cumulative

DAY = 86_400
NOW = 1_760_000_400 // 600 * 600
RETENTION = HistorySettings()
SCREEN = ("gpu_memory_used", "native_gpu_memory", "ollama_gpu_memory", "native_p50", "ollama_p50")


def fill(store: Store, days: int) -> None:
    rng = np.random.default_rng(1)
    keys = tuple(METRICS)
    scale = np.array([64e9 if METRICS[key].unit == "bytes" else 60.0 for key in keys])
    counters = cumulative(keys)
    with store._file.write() as db:
        db.execute("INSERT INTO provenance (digest, snapshot) VALUES ('x', '{}')")
        for day in range(days, 0, -1):
            at_ms = (NOW - day * DAY + np.arange(DAY)) * 1000
            raw = scale * rng.random((DAY, len(keys)))
            block = Block(at_ms, raw, raw, raw, np.ones_like(raw), np.ones(DAY))
            if day == 1:
                names = ", ".join(keys)
                marks = ", ".join("?" * (2 + len(keys)))
                db.conn.executemany(
                    f"INSERT INTO {RAW.table} (at_ms, provenance_id, {names}) VALUES ({marks})",
                    ((at, 1, *row) for at, row in zip(at_ms.tolist(), raw.tolist(), strict=True)),
                )
            for tier in COARSER:
                block = thin(block, tier.ms, counters)
                if day * DAY * 1000 <= tier.keep_ms(RETENTION):
                    insert_rolled(db, tier, block)
        for tier in (RAW, *COARSER):
            db.execute(
                "UPDATE tier SET done_until_ms = ?, thinned_until_ms = ? WHERE seconds = ?",
                (NOW * 1000, max(NOW * 1000 - tier.keep_ms(RETENTION), 0), tier.seconds),
            )


def clock(label: str, call: Callable[[], object], rounds: int = 9) -> None:
    call()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1000)
    print(f"{label:<58} median {statistics.median(taken):7.2f} ms   worst {max(taken):7.2f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        path = Path(folder) / "history.db"
        now = [float(NOW)]
        store = Store.open(path, retention=RETENTION, clock=lambda: now[0])
        start = time.perf_counter()
        fill(store, 30)
        print(f"filled in {time.perf_counter() - start:.1f} s, {path.stat().st_size / 2**20:.0f} MiB")

        notes = {key: Provenance(source="benchmark") for key in METRICS}

        def add() -> None:
            now[0] += 1
            store.add_sample(Sample(now[0], dict.fromkeys(METRICS, 1.5), notes))

        passes: list[float] = []
        for _ in range(9):
            for _ in range(60):
                add()
            start = time.perf_counter()
            store.maintain()
            passes.append((time.perf_counter() - start) * 1000)
        print(f"maintain, each minute: median {statistics.median(passes):.1f} ms, worst {max(passes):.1f} ms")
        clock("add one sample (commit, synchronous=FULL)", add, rounds=50)

        def window(span: float, metrics: Sequence[str] | None) -> Callable[[], object]:
            return lambda: store.history(now[0] - span, now[0], metrics)

        for days in (30.0, 7.0, 1.0, 6 / 24, 1 / 24, 1 / 96):
            clock(f"{days:.3g} d, the 5 metrics of a screen", window(days * DAY, SCREEN))
        clock(f"30 d, all {len(METRICS)} metrics", window(30 * DAY, None))
        clock("recorded span", store.recorded_span)
        start = time.perf_counter()
        rows = store.export_csv(Path(folder) / "all.csv", now[0] - DAY, now[0])
        print(f"export 24 h, all metrics: {rows} rows in {time.perf_counter() - start:.1f} s")
        store.close()
        start = time.perf_counter()
        store = Store.open(path, retention=RETENTION)
        print(f"open: {(time.perf_counter() - start) * 1000:.1f} ms")
        store.close()


if __name__ == "__main__":
    main()
