"""Fifty times, a process that records is killed with SIGKILL; no second that it committed may be lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

from embedctl.store.tiers import COARSER

ROUNDS = 50
WRITER = Path(__file__).with_name("store_writer.py")


def test_a_kill_at_any_moment_loses_no_committed_second(tmp_path: Path) -> None:
    database = tmp_path / "history.db"
    rng = random.Random(20_260)
    committed: list[int] = []
    second = 1_760_000_400
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for _ in range(ROUNDS):
            writer.stdin.write(f"{second}\n")
            writer.stdin.flush()
            # A third of the kills come early, while the file is made, looked at or recovered; the others
            # after some commits, so that on a slow machine, too, there is something to lose.
            commits = 0 if rng.random() < 0.33 else rng.randrange(1, 60)
            delay = rng.uniform(0.0, 0.01 if commits else 0.05)
            victim = seen = 0
            killer: threading.Timer | None = None
            while (line := writer.stdout.readline().strip()) != "ended":
                assert line not in ("", "failed"), "the writer ended by itself"
                if line.startswith("pid"):
                    victim = int(line.split()[1])
                else:
                    committed.append(int(line))
                    seen += 1
                if seen >= commits and victim and killer is None:
                    killer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
                    killer.start()
            assert killer is not None, "it ended before it was killed"
            killer.join()
            second = max([second, *committed]) + rng.randrange(1, 40)
            check(copied(database, tmp_path / "copy"), committed)
        writer.stdin.close()
    assert len(committed) > ROUNDS
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM sample_60s").fetchone()[0] > 1


def copied(database: Path, folder: Path) -> Path:
    """The file as the kill left it, so that looking does not spare the next round's recovery."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in (database.name, f"{database.name}-wal"):
        if (source := database.with_name(name)).exists():
            shutil.copy(source, folder / name)
    return folder / database.name


def check(database: Path, committed: list[int]) -> None:
    if not database.exists():
        assert not committed
        return
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not committed:
            return
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        stored = {at_ms // 1000 for (at_ms,) in connection.execute("SELECT at_ms FROM sample_1s")}
        assert not set(committed) - stored
        for tier in COARSER:
            marks = "SELECT done_until_ms, thinned_until_ms FROM tier WHERE seconds = ?"
            done, thinned = connection.execute(marks, (tier.seconds,)).fetchone()
            rolled = f"SELECT total(gpu_power_n) FROM {tier.table}"
            read = "SELECT count(*) FROM sample_1s WHERE at_ms >= ? AND at_ms < ?"
            assert (
                connection.execute(rolled).fetchone() == connection.execute(read, (thinned, done)).fetchone()
            )
