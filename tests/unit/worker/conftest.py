from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.backends.native import backend as native
from tests.support.native_stage import FakeWorker, Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A native backend whose worker is scripted."""
    monkeypatch.setattr(native, "WorkerClient", FakeWorker)
    monkeypatch.setattr(FakeWorker, "made", [])
    monkeypatch.setattr(FakeWorker, "failures", [])
    built = Stage(tmp_path)
    yield built
    built.backend.close()
