"""Tuning through the worker: measured on request, kept in a file, used at the next load."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from embedctl.errors import UsageError
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame
from embedctl.worker.protocol import WorkerOptions, error_from
from embedctl.worker.server import WorkerServer
from tests.support.late import late
from tests.support.tiny_models import XLM_R, tiny_model

tuning = late("embedctl.encoder.tuning")
fast = late("embedctl.encoder.fast")
loading = late("embedctl.encoder.loading")
reference = late("embedctl.encoder.reference")

pytestmark = pytest.mark.torch


@pytest.fixture
def ends() -> Iterator[tuple[WorkerServer, Channel]]:
    """A server without its threads, and the engine's end of its socket."""
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    engine, server = Channel(ours), Channel(theirs)
    try:
        yield WorkerServer(server), engine
    finally:
        engine.close()
        server.close()


def ask(server: WorkerServer, engine: Channel) -> Frame:
    assert server.route(Frame({"kind": "tune", "id": 7})) is None
    answer = engine.receive()
    assert answer is not None and answer.id == 7
    return answer


def test_a_budget_is_measured_kept_and_found_at_the_next_load(
    ends: tuple[WorkerServer, Channel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "CPU_CANDIDATES", (64, 128))
    monkeypatch.setattr(tuning, "_SECONDS", 0.02)
    server, engine = ends
    file = tmp_path / "token-budgets.json"
    options = WorkerOptions(str(tiny_model(XLM_R)), device="cpu", budgets_file=str(file))
    first = server._load(options)
    assert isinstance(first.encoder, fast.FastEncoder)
    assert first.encoder.token_budget == tuning.CPU_DEFAULT
    server.open(first)
    while (frame := engine.receive()) is not None and frame.header["name"] != "canary":
        pass  # the load's steps
    answer = ask(server, engine)
    assert answer.kind == "tune"
    report: dict[str, Any] = answer.header["report"]
    assert report["before"] == tuning.CPU_DEFAULT
    assert [budget for budget, _ in report["rates"]] == [64, 128]
    (kept,) = json.loads(file.read_text()).values()
    assert kept["token_budget"] == report["token_budget"] in (64, 128)
    again = server._load(options).encoder
    assert isinstance(again, fast.FastEncoder)
    assert again.token_budget == report["token_budget"]


def test_a_model_without_a_token_budget_says_so(ends: tuple[WorkerServer, Channel]) -> None:
    server, engine = ends
    server.open(
        cast(
            Any,
            SimpleNamespace(
                encoder=reference.ReferenceEncoder(loading.load_model(tiny_model(XLM_R), device="cpu"))
            ),
        )
    )
    error = error_from(ask(server, engine).header["error"])
    assert isinstance(error, UsageError)
    assert "native.batch_size" in error.remedy
