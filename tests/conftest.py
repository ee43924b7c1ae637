"""Rules that hold for every test: folders of its own, no network beyond loopback, no inherited settings."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Workers import torch and its kin anew: compiled modules that are kept save each of them half the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# OpenMP's threads spin while they wait for one another. Beside other test processes that took four fifths of
# the processor time of every test that runs torch; a worker's own environment says the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_WITH_TORCH = (
    "tests/unit/encoder/",
    "tests/unit/lab/test_quality_reference.py",
    "tests/unit/worker/test_worker_fairness.py",
    "tests/unit/worker/test_worker_tune.py",
)
"""Tests that load torch into their own process."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `--dist loadfile`, and one process runs all tests that load torch, which takes it some seconds."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "torch" if nodeid.startswith(_WITH_TORCH) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


_INHERITED = ("EMBEDCTL_", "EMBEDDING_", "HF_", "HUGGING_FACE_", "OLLAMA_", "NO_COLOR", "FORCE_COLOR")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting, token or cache of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith(_INHERITED):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EMBEDCTL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")  # the discard port: nobody answers there


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A connection beyond loopback fails the test that tries it."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = str(address[0])
            if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
                raise AssertionError(f"a test tried to reach {host}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder that `EMBEDCTL_HOME` names in this test."""
    return tmp_path / "home"
