"""How the worker treats requests, with a scripted encoder in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from embedctl.encoder.base import Encoded
from embedctl.errors import Cancelled, InvalidTextError
from embedctl.records import TextFailure
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame, pack_texts
from embedctl.worker.server import WorkerServer


class ScriptedEncoder:
    """Two numbers per text; `before` runs ahead of every batch of one text."""

    def __init__(self) -> None:
        self.concurrent = False
        self.encoded: list[str] = []
        self.before: Callable[[str], None] = lambda text: None

    def encode(
        self, texts: Sequence[str], *, batch_size: int | None, normalize: bool, cancelled: Callable[[], bool]
    ) -> Encoded:
        for text in texts:
            self.before(text)
            if cancelled():
                raise Cancelled
            self.encoded.append(text)
        return Encoded(
            np.arange(2 * len(texts), dtype=np.float32).reshape(-1, 2),
            np.full(len(texts), 3, dtype=np.int32),
            truncated=(0,),
            failures=(TextFailure(1, "why"),),
            notes=("a note",),
        )


class Bench:
    """A server without its threads, and the engine's end of its socket."""

    def __init__(self, server: Channel, engine: Channel) -> None:
        self.server = WorkerServer(server)
        self.engine = engine
        self.encoder = ScriptedEncoder()

    def embed(self, number: int, texts: list[str]) -> Frame:
        header = {"kind": "embed", "id": number, "count": len(texts), "batch_size": 1, "normalize": True}
        frame = Frame(header, pack_texts(texts))
        self.server.route(frame)
        return frame

    def answer(self, frame: Frame) -> Frame:
        selection: Any = SimpleNamespace(encoder=self.encoder)
        self.server.serve(frame, selection)
        received = self.engine.receive()
        assert received is not None
        return received


@pytest.fixture
def bench() -> Iterator[Bench]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield Bench(theirs, ours)
    ours.close()
    theirs.close()


def test_vectors_come_back_as_raw_floats_with_what_is_to_be_told(bench: Bench) -> None:
    answer = bench.answer(bench.embed(5, ["a", "b"]))
    assert answer.header == {
        "kind": "vectors",
        "id": 5,
        "rows": 2,
        "dimension": 2,
        "tokens": 6,
        "truncated": [0],
        "failures": [[1, "why"]],
        "notes": ["a note"],
    }
    assert np.frombuffer(answer.payload, "<f4").tolist() == [0, 1, 2, 3]


def test_no_texts_make_no_rows(bench: Bench) -> None:
    answer = bench.answer(bench.embed(1, []))
    assert (answer.header["rows"], answer.header["dimension"], len(answer.payload)) == (0, 2, 0)


def test_a_request_that_is_cancelled_while_it_waits_is_not_computed(bench: Bench) -> None:
    frame = bench.embed(1, ["a"])
    bench.server.route(Frame({"kind": "cancel", "id": 1}))
    assert bench.answer(frame).header["error"]["type"] == "Cancelled"
    assert bench.encoder.encoded == []


def test_a_request_that_is_cancelled_while_it_runs_stops_between_batches(bench: Bench) -> None:
    frame = bench.embed(1, ["a", "b", "c"])

    def cancel_at_b(text: str) -> None:
        if text == "b":
            bench.server.route(Frame({"kind": "cancel", "id": 1}))

    bench.encoder.before = cancel_at_b
    assert bench.answer(frame).header["error"]["type"] == "Cancelled"
    assert bench.encoder.encoded == ["a"]


def test_a_cancelled_request_does_not_touch_the_next_one(bench: Bench) -> None:
    first, second = bench.embed(1, ["a"]), bench.embed(2, ["b"])
    bench.server.route(Frame({"kind": "cancel", "id": 1}))
    assert bench.answer(first).kind == "error"
    assert bench.answer(second).kind == "vectors"


def test_a_ping_is_answered_while_requests_wait(bench: Bench) -> None:
    bench.embed(1, ["a"])
    bench.server.route(Frame({"kind": "ping", "id": 2}))
    answer = bench.engine.receive()
    assert answer is not None
    assert answer.header == {"kind": "pong", "id": 2}


def test_an_error_costs_its_request_and_not_the_worker(bench: Bench) -> None:
    def fail(text: str) -> None:
        raise InvalidTextError("Text 0 is bad", index=0) if text == "ours" else KeyError(text)

    bench.encoder.before = fail
    assert bench.answer(bench.embed(1, ["ours"])).header["error"]["index"] == 0
    assert bench.answer(bench.embed(2, ["theirs"])).header["error"]["why"] == "KeyError: 'theirs'"
    bench.encoder.before = lambda text: None
    assert bench.answer(bench.embed(3, ["a"])).kind == "vectors"


def test_requests_stand_side_by_side_before_an_encoder_that_shares_batches(bench: Bench) -> None:
    together = threading.Barrier(2, timeout=30)
    bench.encoder.concurrent = True

    def wait_for_the_other(_: str) -> None:
        together.wait()

    bench.encoder.before = wait_for_the_other
    bench.server.open_lanes(cast(Any, SimpleNamespace(encoder=bench.encoder)))
    bench.embed(1, ["a"])
    bench.embed(2, ["b"])
    answers = [bench.engine.receive(), bench.engine.receive()]
    assert {answer.id for answer in answers if answer} == {1, 2}
    assert {answer.kind for answer in answers if answer} == {"vectors"}


def test_an_encoder_for_one_thread_gets_no_lanes(bench: Bench) -> None:
    before = threading.active_count()
    bench.server.open_lanes(cast(Any, SimpleNamespace(encoder=bench.encoder)))
    assert threading.active_count() == before
