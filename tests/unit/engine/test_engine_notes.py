"""A user's notes on the time line, and what a start tells of the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.engine.journal import Journal, this_process
from embedctl.errors import UsageError
from embedctl.events import EventBus, EventRecorded
from embedctl.settings import HistorySettings
from embedctl.store import Store

NOW = 1_772_625_600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "history.db", retention=HistorySettings(), clock=lambda: NOW)
    yield opened
    opened.close()


def test_a_note_is_stored_at_its_moment_and_told(store: Store) -> None:
    bus, told = EventBus(), []
    bus.subscribe(told.append)
    event = Journal(store, bus, lambda: NOW).annotate(NOW - 3_600, "  new\n driver ")
    assert (event.at, event.kind, event.title) == (NOW - 3_600, "note", "new driver")
    assert store.events() == (event,)
    assert told == [EventRecorded(event)]


@pytest.mark.parametrize(("at", "text"), [(NOW, " \n"), (-1.0, "x"), (float("nan"), "x"), (1e300, "x")])
def test_no_text_or_no_moment_is_refused(store: Store, at: float, text: str) -> None:
    with pytest.raises(UsageError):
        Journal(store, EventBus()).annotate(at, text)
    assert store.events() == ()


def test_a_process_is_known_by_its_number_and_the_machines_boot() -> None:
    found = this_process()
    assert found["pid"] == os.getpid()
    assert found == this_process()
    assert found["boot"] is None or len(found["boot"]) == 36
