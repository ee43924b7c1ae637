"""Engines in these tests look at other processes without waiting in between."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_between_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedctl.engine.surroundings.LOOK_S", 0.0)
