"""The file's shape: metrics and columns agree, everything is described, migrations are recorded."""

from __future__ import annotations

import re
import sqlite3
from importlib.resources import files
from pathlib import Path

import pytest
from sqlite_utils import Database

from embedctl.errors import StoreNewerError
from embedctl.metrics import METRICS
from embedctl.settings import HistorySettings
from embedctl.store import Store, migrations
from embedctl.store.database import APPLICATION_ID
from embedctl.store.tiers import TIERS, columns


@pytest.fixture
def db(store: Store) -> Database:
    return Database(store.path)


def test_every_tier_has_exactly_the_columns_of_the_metrics(db: Database) -> None:
    for tier in TIERS:
        expected = {"at_ms", "provenance_id"} | {c for key in METRICS for c in columns(tier, key)}
        assert set(db.table(tier.table).columns_dict) == expected


def test_the_description_names_every_table_and_column(db: Database) -> None:
    text = files("embedctl.store").joinpath("SCHEMA.md").read_text(encoding="utf-8")
    sections = {name.strip(): body for name, body in re.findall(r"^## (.+)\n([^#]+)", text, re.MULTILINE)}
    by_table = {table.strip(): body for names, body in sections.items() for table in names.split(",")}
    metrics = set(re.findall(r"`(\w+)`", by_table["Metrics"]))
    assert metrics == set(METRICS)
    thinned = "sample_60s"
    for table in db.table_names():
        described = set(re.findall(r"`(\w+)`", by_table[table]))
        if table == "sample_1s":
            described |= metrics
        elif table.startswith("sample_"):
            described = set(re.findall(r"`(\w+)`", by_table.get(table, by_table[thinned])))
            described |= {f"{key}{part}" for key in metrics for part in ("_min", "_mean", "_max", "_n")}
            assert {"_min", "_mean", "_max", "_n"} <= described
        assert set(db.table(table).columns_dict) <= described, table


def test_each_migration_is_recorded_once_with_its_version_and_time(store: Store, db: Database) -> None:
    rows = list(db.table("migration").rows)
    assert [row["version"] for row in rows] == list(range(1, migrations.LATEST + 1))
    assert [row["name"] for row in rows] == [each.name for each in migrations.MIGRATIONS]
    assert {row["applied_at"] for row in rows} == {store._clock()}
    assert db.execute("PRAGMA user_version").fetchone()[0] == migrations.LATEST
    assert db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID


def test_the_connection_is_durable_and_strict(tmp_path: Path) -> None:
    with Store.open(tmp_path / "history.db", retention=HistorySettings())._file.write() as db:
        pragmas = {
            name: db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_foreign_key_that_leads_nowhere_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match="FOREIGN KEY"), store._file.write() as db:
        db.execute("INSERT INTO measurement (run_id, position) VALUES (99, 0)")


def test_an_upgrade_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.db"
    released = list(migrations.MIGRATIONS)
    with Store.open(path, retention=HistorySettings())._file.write() as db:
        db.execute("INSERT INTO sample_10s (at_ms, gpu_power_mean) VALUES (10000, 7)")

    def fan(db: Database) -> None:
        for tier in TIERS:
            for column in columns(tier, "gpu_fan"):
                db.table(tier.table).add_column(column, float)

    monkeypatch.setattr(migrations, "MIGRATIONS", [*released, migrations.Migration("fan", fan)])
    Store.open(path, retention=HistorySettings()).close()
    upgraded = Database(path)
    assert next(upgraded.query("SELECT gpu_power_mean, gpu_fan_mean FROM sample_10s")) == {
        "gpu_power_mean": 7.0,
        "gpu_fan_mean": None,
    }
    assert upgraded.execute("PRAGMA user_version").fetchone()[0] == len(released) + 1


def test_a_file_from_before_the_hours_gets_them_and_fills_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, now = tmp_path / "history.db", 7 * 3600.0
    with monkeypatch.context() as before:
        older = [each for each in migrations.MIGRATIONS if each.name != "hours"]
        before.setattr(migrations, "MIGRATIONS", older)
        store = Store.open(path, retention=HistorySettings())
        with store._file.write() as db:
            assert "sample_3600s" not in db.table_names()
            rows = [(at * 600_000, at) for at in range(36)]
            db.conn.executemany(
                "INSERT INTO sample_600s (at_ms, gpu_power_min, gpu_power_mean, gpu_power_max, gpu_power_n) "
                "VALUES (?1, ?2, ?2, ?2, 600)",
                rows,
            )
        store.close()
    store = Store.open(path, retention=HistorySettings(), clock=lambda: now)
    try:
        shown = store.history(0, 30 * 86_400, ["gpu_power"]).series["gpu_power"].high.tolist()
        assert shown == [5, 11, 17, 23, 29, 35], "before it is filled, too"
        store.maintain()
        stored = "SELECT gpu_power_max, gpu_power_n FROM sample_3600s"
        assert Database(path).execute(stored).fetchall() == [(float(at), 3600.0) for at in shown]
    finally:
        store.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.db"
    Store.open(path, retention=HistorySettings()).close()
    before = "\n".join(sqlite3.connect(path).iterdump())

    def broken(db: Database) -> None:
        db.table("half").create({"id": int})
        raise RuntimeError("stop here")

    monkeypatch.setattr(
        migrations, "MIGRATIONS", [*migrations.MIGRATIONS, migrations.Migration("broken", broken)]
    )
    with pytest.raises(RuntimeError, match="stop here"):
        Store.open(path, retention=HistorySettings())
    assert "\n".join(sqlite3.connect(path).iterdump()) == before


def test_a_file_from_a_newer_version_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    Store.open(path, retention=HistorySettings()).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={migrations.LATEST + 4}")
    connection.execute("PRAGMA journal_mode=delete")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreNewerError) as caught:
        Store.open(path, retention=HistorySettings())
    assert str(migrations.LATEST + 4) in caught.value.why
    assert path.read_bytes() == before
