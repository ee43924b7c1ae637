"""What may be wrong with the file, each told apart, and the old file never touched."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedctl.errors import (
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StoreReadOnlyError,
)
from embedctl.records import Event, Sample
from embedctl.settings import HistorySettings
from embedctl.store import Store
from embedctl.store.database import HistoryFile
from tests.support.store_bench import START, Bench

NOBODY = 65_534


def open_store(path: Path) -> Store:
    return Store.open(path, retention=HistorySettings(), clock=lambda: START)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_empty_file_is_a_new_history(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.touch()
    store = open_store(path)
    store.set_state("a", "b")
    store.close()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_another_program_is_named_and_left_alone(tmp_path: Path, journal: str) -> None:
    path = tmp_path / "history.db"
    other = sqlite3.connect(path)
    other.execute(f"PRAGMA journal_mode={journal}")
    other.execute("CREATE TABLE bookmarks (url)")
    other.execute("INSERT INTO bookmarks VALUES ('x')")
    other.commit()
    before = path.read_bytes()
    with pytest.raises(StoreForeignError, match="another program"):
        open_store(path)
    assert path.read_bytes() == before
    assert other.execute("SELECT * FROM bookmarks").fetchall() == [("x",)]
    other.close()


def test_a_foreign_write_ahead_log_is_not_folded_in(tmp_path: Path) -> None:
    source, folder = tmp_path / "source.db", tmp_path / "copy"
    other = sqlite3.connect(source)
    other.execute("PRAGMA journal_mode=wal")
    other.execute("CREATE TABLE bookmarks (url)")
    other.commit()
    folder.mkdir()
    for suffix in ("", "-wal"):  # as a killed program leaves it
        (folder / f"history.db{suffix}").write_bytes(Path(f"{source}{suffix}").read_bytes())
    before = contents(folder)
    with pytest.raises(StoreForeignError):
        open_store(folder / "history.db")
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    other.close()


def test_a_file_that_is_no_database_is_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"time,value\n" * 2_000)
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError, match="damaged"):
        open_store(path)
    assert path.read_bytes() == before


def filled(path: Path) -> bytes:
    store = open_store(path)
    with store._file.write() as db:
        for second in range(500):
            db.execute("INSERT INTO sample_1s (at_ms, gpu_power) VALUES (?, 1)", (second,))
    store.close()
    return path.read_bytes()


def test_a_file_that_was_cut_short_is_damaged_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    whole = filled(path)
    path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
    before = path.read_bytes()
    with pytest.raises(StoreCorruptError):
        open_store(path)
    assert path.read_bytes() == before


def test_damage_that_shows_only_later_is_named_when_it_does(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    whole = bytearray(filled(path))
    connection = sqlite3.connect(path)
    root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'event'").fetchone()[0]
    connection.close()
    whole[(root - 1) * 4096 : root * 4096] = b"\xff" * 4096
    path.write_bytes(whole)
    with pytest.raises(StoreCorruptError):
        open_store(path).events()


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere; permissions mean something to others only."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach, which pytest's own cannot be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_who_records_is_not_known_where_the_lock_file_cannot_be_read(tmp_path: Path) -> None:
    store = open_store(tmp_path / "history.db")
    lock = tmp_path / "history.db.recorder"
    lock.symlink_to(lock)
    assert store.recorder() is None
    store.close()


def test_a_folder_made_for_the_history_is_its_users_alone(tmp_path: Path) -> None:
    """Checks keep texts of the user's."""
    open_store(tmp_path / "embedctl" / "history.db").close()
    assert stat.S_IMODE((tmp_path / "embedctl").stat().st_mode) == 0o700


def test_a_read_only_folder_is_told_from_other_troubles(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with without_privileges(), pytest.raises(StoreReadOnlyError) as caught:
        open_store(open_folder / "history.db")
    assert "read-only for this user" in caught.value.why
    assert list(open_folder.iterdir()) == []


def test_a_missing_folder_that_cannot_be_made_is_read_only(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with without_privileges(), pytest.raises(StoreReadOnlyError, match="cannot be made"):
        open_store(open_folder / "data" / "history.db")


def test_a_history_in_a_folder_that_became_read_only_is_left_alone(open_folder: Path) -> None:
    path = open_folder / "history.db"
    before = filled(path)
    path.chmod(0o444)
    open_folder.chmod(0o555)
    with without_privileges(), pytest.raises(StoreReadOnlyError) as caught:
        open_store(path)
    assert "read-only for this user" in caught.value.why
    assert path.read_bytes() == before


def test_a_folder_in_place_of_the_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    with pytest.raises(StoreReadOnlyError, match="it is a folder"):
        open_store(tmp_path / "history.db")


def test_a_full_disk_stops_writing_and_nothing_else(bench: Bench, store: Store) -> None:
    bench.record(store, lambda s: {"gpu_power": float(s)}, range(20))
    writer = store._file._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreFullError, match="cannot grow"):
        for i in range(200):
            store.add_event(Event(START, "note", "x" * 500, detail={"i": i}))
    kept = len(store.events(limit=1_000))
    assert len(store.history(START, START + 60, ["gpu_power"]).series["gpu_power"]) == 20
    writer.execute("PRAGMA max_page_count=1000000")
    store.add_event(Event(START, "note", "room again"))
    assert len(store.events(limit=1_000)) == kept + 1
    assert writer.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_sample_that_found_no_room_leaves_no_trace(bench: Bench, store: Store) -> None:
    bench.record(store, lambda s: {"gpu_power": float(s)}, range(3))
    writer = store._file._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages}")
    stored = 3
    with pytest.raises(StoreFullError):
        for second in range(3, 2_000):
            store.add_sample(Sample(START + second, {"gpu_power": float(second)}))
            stored += 1
    assert len(store.history(START, START + 2_000, ["gpu_power"], 9_999).series["gpu_power"]) == stored


def test_a_second_process_reads_and_writes_but_does_not_record(bench: Bench) -> None:
    first, second = bench.open(), bench.open()
    bench.record(first, lambda s: {"gpu_power": float(s)}, range(5))
    with pytest.raises(StoreBusyError) as caught:
        second.add_sample(Sample(START + 9, {"gpu_power": 9.0}))
    assert str(os.getpid()) in caught.value.why
    assert second.recorder() == os.getpid()
    assert first.recorder() is None
    second.maintain()
    second.add_event(Event(START, "switch", "from the second"))
    second.set_state("active", "ollama")
    assert first.get_state("active") == "ollama"
    assert len(second.history(START, START + 60, ["gpu_power"]).series["gpu_power"]) == 5


def test_the_second_records_once_the_first_has_ended(bench: Bench) -> None:
    first, second = bench.open(), bench.open()
    bench.record(first, lambda s: {"gpu_power": float(s)}, range(700))
    first.maintain()
    with pytest.raises(StoreBusyError):
        second.add_sample(Sample(START + 700, {}))
    first.close()
    assert second.recorder() is None
    second.add_sample(Sample(START + 5.5, {"gpu_power": 9_999.0}))  # late: the marks of the first are known
    second.maintain()
    assert second.history(START, START + 86_400, ["gpu_power"]).series["gpu_power"].high[0] == 9_999


def test_a_write_that_another_process_holds_up_says_so(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    patient = HistoryFile(path, clock=lambda: START)
    hasty = HistoryFile(path, clock=lambda: START, busy_timeout_s=0.01)
    with patient.write(), pytest.raises(StoreBusyError, match="held by another process"), hasty.write():
        pass
    with hasty.write() as db:
        db.execute("INSERT INTO state VALUES ('a', 'b', 0)")
    patient.close()
    hasty.close()


def test_several_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    gate = threading.Barrier(6)

    def start() -> None:
        gate.wait()
        try:
            open_store(tmp_path / "history.db").close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_closed_store_says_so(bench: Bench, store: Store) -> None:
    store.close()
    store.close()
    for call in (
        store.recorded_span,
        lambda: store.set_state("a", "b"),
        lambda: store.add_sample(Sample(START, {})),
    ):
        with pytest.raises(StoreError, match="closed"):
            call()
    bench.open().add_sample(Sample(START, {}))  # and keeps nobody from recording


def test_a_write_that_raises_is_undone(bench: Bench, store: Store) -> None:
    with pytest.raises(KeyError), store._file.write() as db:
        db.execute("INSERT INTO state VALUES ('a', 'b', 0)")
        raise KeyError
    assert store.get_state("a") is None
