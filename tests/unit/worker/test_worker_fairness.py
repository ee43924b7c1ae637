"""A bulk job and single queries together, from the socket to the batches of a scripted device."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from embedctl.encoder.base import Answer
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame, pack_texts
from embedctl.worker.server import WorkerServer

pytestmark = pytest.mark.torch

BULK, QUERY = 20, 7
"""Tokens of a text of either kind, by which a batch shows whose it is."""


@dataclass
class ScriptedTokens:
    texts: Sequence[str]

    def ids(self) -> list[Any]:
        return [np.zeros(QUERY if text == "query" else BULK, np.int32) for text in self.texts]

    def truncated(self) -> list[int]:
        return []


@dataclass
class ScriptedDevice:
    """Computes nothing; records batches as lists of lengths."""

    on_work: Callable[[int], bool]
    """Asked again and again while a batch runs, by its number, whether it still does."""
    batches: list[list[int]] = field(default_factory=list)

    def stage(self, batch: Any, *, normalize: bool) -> ScriptedBatch:
        return ScriptedBatch(self, batch.lengths.tolist())

    def release_memory(self) -> None:
        pass


@dataclass
class ScriptedBatch:
    device: ScriptedDevice
    lengths: list[int]
    number: int = -1

    def launch(self) -> ScriptedBatch:
        self.number = len(self.device.batches)
        self.device.batches.append(self.lengths)
        return self

    def pending(self) -> bool:
        return self.device.on_work(self.number)

    def wait(self) -> None:
        pass

    def collect(self) -> Any:
        return np.ones((len(self.lengths), 4), np.float32)


def encoder_on(device: ScriptedDevice) -> Any:
    from embedctl.encoder.fast import FastEncoder

    model = SimpleNamespace(
        first_position=0, skipped_id=None, device=SimpleNamespace(type="cpu"), dtype="float32",
        dimension=4, max_tokens=512, pooling="cls", normalizes=True,
    )  # fmt: skip
    engine = SimpleNamespace(runner=device, model=model, attention="scripted", dtype="float32", notes=())
    return FastEncoder(cast(Any, engine), cast(Any, ScriptedTokens), token_budget=4096)


def embed(number: int, texts: list[str]) -> Frame:
    header = {"kind": "embed", "id": number, "count": len(texts), "batch_size": None, "normalize": True}
    return Frame(header, pack_texts(texts))


def test_a_query_beside_a_bulk_job_waits_for_no_more_than_the_batch_that_runs() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    with contextlib.closing(ours), contextlib.closing(theirs):
        sent: dict[int, int] = {}

        def send_a_query_in_every_batch_of_the_job(batch: int) -> bool:
            if device.batches[batch][0] == BULK and batch not in sent.values():
                sent[100 + batch] = batch
                ours.send(embed(100 + batch, ["query"]))
                return True
            return False

        device = ScriptedDevice(send_a_query_in_every_batch_of_the_job)
        server = WorkerServer(theirs)
        server.open(cast(Any, SimpleNamespace(encoder=encoder_on(device))))
        answers: list[tuple[int, int]] = []

        def note(finished: list[Answer]) -> None:
            assert not any(isinstance(outcome, Exception) for _, outcome in finished)
            answers.extend((number, len(device.batches)) for number, _ in finished)

        desk = server.route(embed(1, ["bulk"] * 5000))
        assert desk is not None
        desk.drive(note, server._read_along)

    bulk = [number for number, lengths in enumerate(device.batches) if lengths[0] == BULK]
    assert sum(len(device.batches[number]) for number in bulk) == 5000
    assert len(bulk) > 20
    assert list(sent.values()) == bulk
    for during in sent.values():
        assert device.batches[during + 1] == [QUERY], "a query did not go right after the batch it met"
    order = [number for number, _ in answers]
    assert order.index(1) >= len(order) - 2, "the job was answered before queries that came during it"
    assert sorted(order) == sorted([1, *sent])


def test_a_cancelled_bulk_job_leaves_its_place_after_the_batch_that_runs() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    with contextlib.closing(ours), contextlib.closing(theirs):
        told: list[int] = []

        def cancel_during_the_third_batch(batch: int) -> bool:
            if batch == 2 and not told:
                told.append(batch)
                ours.send(Frame({"kind": "cancel", "id": 1}))
                return True
            return False

        device = ScriptedDevice(cancel_during_the_third_batch)
        server = WorkerServer(theirs)
        server.open(cast(Any, SimpleNamespace(encoder=encoder_on(device))))
        desk = server.route(embed(1, ["bulk"] * 5000))
        assert desk is not None
        desk.drive(server.deliver, server._read_along)
        answer = ours.receive()
        assert answer is not None and answer.header["error"]["type"] == "Cancelled"
        assert len(device.batches) <= 4
        desk = server.route(embed(2, ["query"]))
        assert desk is not None
        desk.drive(server.deliver)
        answer = ours.receive()
        assert answer is not None and (answer.kind, answer.id) == ("vectors", 2)
