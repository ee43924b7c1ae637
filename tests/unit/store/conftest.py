"""A store on a clock that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.store import Store
from tests.support.store_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "data" / "history.db")
    yield bench
    for store in bench.opened:
        store.close()


@pytest.fixture
def store(bench: Bench) -> Store:
    return bench.open()
