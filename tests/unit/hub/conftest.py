"""A loopback Hub with one tiny model, and the object under test before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.hub import ModelHub
from embedctl.hub import transfer as transfer_module
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import REPO, REVISION, write_model_folder


@pytest.fixture
def served(tmp_path: Path) -> Path:
    return write_model_folder(tmp_path / "served")


@pytest.fixture
def server(served: Path) -> Iterator[FaultyHub]:
    with FaultyHub({REPO: served}, REVISION) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(server: FaultyHub, cache: Path) -> ModelHub:
    return ModelHub(REPO, REVISION, cache_dir=cache, endpoint=server.endpoint)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(transfer_module, "_LONGEST_PAUSE", 0.0)
