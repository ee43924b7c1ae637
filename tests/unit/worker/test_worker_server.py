"""How the worker treats requests, with a scripted encoder in this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from embedctl.encoder.base import Answer, Encoded
from embedctl.errors import Cancelled, InvalidTextError
from embedctl.records import TextFailure
from embedctl.worker import server
from embedctl.worker.channel import Channel
from embedctl.worker.desk import Desk
from embedctl.worker.frames import Frame, pack_texts
from embedctl.worker.server import WorkerServer


class ScriptedEncoder:
    """Two numbers per text; `before` runs ahead of every batch of one text."""

    def __init__(self) -> None:
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

    def __init__(self, theirs: Channel, engine: Channel) -> None:
        self.server = WorkerServer(theirs)
        self.engine = engine
        self.encoder = ScriptedEncoder()
        self.desk: Desk | None = None
        self.server.open(cast(Any, SimpleNamespace(encoder=self.encoder)))

    def embed(self, number: int, texts: list[str]) -> None:
        """Have the server read a request; keeps the desk that has to be driven for it."""
        header = {"kind": "embed", "id": number, "count": len(texts), "batch_size": 1, "normalize": True}
        self.desk = self.server.route(Frame(header, pack_texts(texts))) or self.desk

    def cancel(self, number: int) -> None:
        self.server.route(Frame({"kind": "cancel", "id": number}))

    def work(self) -> None:
        """What the thread that has read a request does next."""
        assert self.desk is not None
        desk, self.desk = self.desk, None
        desk.drive(self.server.deliver)

    def receive(self) -> Frame:
        received = self.engine.receive()
        assert received is not None
        return received

    def answer(self, number: int, texts: list[str]) -> Frame:
        self.embed(number, texts)
        self.work()
        return self.receive()


@pytest.fixture
def bench() -> Iterator[Bench]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield Bench(theirs, ours)
    ours.close()
    theirs.close()


def test_vectors_come_back_as_raw_floats_with_what_is_to_be_told(bench: Bench) -> None:
    answer = bench.answer(5, ["a", "b"])
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
    answer = bench.answer(1, [])
    assert (answer.header["rows"], answer.header["dimension"], len(answer.payload)) == (0, 2, 0)


def test_a_request_that_is_cancelled_while_it_waits_is_not_computed(bench: Bench) -> None:
    bench.embed(1, ["a"])
    bench.cancel(1)
    bench.work()
    assert bench.receive().header["error"]["type"] == "Cancelled"
    assert bench.encoder.encoded == []


def test_a_request_that_is_cancelled_while_it_runs_stops_between_batches(bench: Bench) -> None:
    def cancel_at_b(text: str) -> None:
        if text == "b":
            bench.cancel(1)

    bench.encoder.before = cancel_at_b
    assert bench.answer(1, ["a", "b", "c"]).header["error"]["type"] == "Cancelled"
    assert bench.encoder.encoded == ["a"]


def test_a_cancelled_request_does_not_touch_the_next_one(bench: Bench) -> None:
    bench.embed(1, ["a"])
    bench.embed(2, ["b"])
    bench.cancel(1)
    bench.work()
    assert bench.receive().kind == "error"
    assert bench.receive().kind == "vectors"
    assert bench.encoder.encoded == ["b"]


def test_a_ping_is_answered_while_requests_wait(bench: Bench) -> None:
    bench.embed(1, ["a"])
    bench.server.route(Frame({"kind": "ping", "id": 2}))
    assert bench.receive().header == {"kind": "pong", "id": 2}


def test_an_error_costs_its_request_and_not_the_worker(bench: Bench) -> None:
    def fail(text: str) -> None:
        raise InvalidTextError("Text 0 is bad", index=0) if text == "ours" else KeyError(text)

    bench.encoder.before = fail
    assert bench.answer(1, ["ours"]).header["error"]["index"] == 0
    assert bench.answer(2, ["theirs"]).header["error"]["why"] == "KeyError: 'theirs'"
    bench.encoder.before = lambda text: None
    assert bench.answer(3, ["a"]).kind == "vectors"


def test_a_request_that_cannot_even_be_read_is_refused_and_not_the_worker(bench: Bench) -> None:
    header = {"kind": "embed", "id": 1, "count": 2, "batch_size": None, "normalize": True}
    assert bench.server.route(Frame(header, pack_texts(["only one"]))) is None
    assert "the payload" in bench.receive().header["error"]["why"]
    assert bench.answer(2, ["a"]).kind == "vectors"


def test_an_answer_that_no_frame_holds_is_told_and_costs_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.worker.frames.MAX_PAYLOAD", 20)
    small, large = (
        bench.encoder.encode(["x"] * texts, batch_size=None, normalize=True, cancelled=bool)
        for texts in (1, 3)
    )
    bench.server.deliver([(1, large), (2, small)])
    told = bench.receive()
    assert (told.kind, told.id, told.header["error"]["type"]) == ("error", 1, "UsageError")
    assert "24 bytes" in told.header["error"]["why"]
    answer = bench.receive()
    assert (answer.kind, answer.id) == ("vectors", 2)


def test_who_reads_a_request_while_another_thread_works_goes_on_reading(bench: Bench) -> None:
    bench.embed(1, ["a"])
    working, bench.desk = bench.desk, None
    bench.embed(2, ["b"])
    assert bench.desk is None
    bench.desk = working
    bench.work()  # both, one after the other
    assert [bench.receive().id, bench.receive().id] == [1, 2]


def test_a_request_during_the_load_is_refused() -> None:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    with contextlib.closing(ours), contextlib.closing(theirs):
        header = {"kind": "embed", "id": 1, "count": 0, "batch_size": None, "normalize": True}
        assert WorkerServer(theirs).route(Frame(header, b"")) is None
        answer = ours.receive()
        assert answer is not None and answer.header["error"]["type"] == "BackendNotLoadedError"


class Sharing:
    """An encoder that is a desk itself: all that was submitted is answered together."""

    info = SimpleNamespace(device="cpu")

    def __init__(self) -> None:
        self.submitted: list[int] = []

    def submit(self, key: int, texts: Sequence[str], **_: object) -> bool:
        self.submitted.append(key)
        return len(self.submitted) == 1

    def drive(self, deliver: Callable[[list[Answer]], None]) -> None:
        row = np.zeros((1, 2), np.float32)
        deliver([(key, Encoded(row, np.ones(1, np.int32), ())) for key in self.submitted])


def test_an_encoder_that_shares_its_batches_gets_the_requests_at_once(bench: Bench) -> None:
    sharing = Sharing()
    bench.server.open(cast(Any, SimpleNamespace(encoder=sharing)))
    for number in range(1, 1001):  # more answers than one `sendmsg` takes buffers
        bench.embed(number, ["a"])
    assert sharing.submitted == list(range(1, 1001))
    sender = threading.Thread(target=bench.work)
    sender.start()
    answers = [bench.receive() for _ in sharing.submitted]
    sender.join()
    assert [answer.id for answer in answers] == sharing.submitted
    assert {(answer.kind, len(answer.payload)) for answer in answers} == {("vectors", 8)}


class WithDevice(Sharing):
    """Has a GPU of its own, which is done when `look` says so."""

    info = SimpleNamespace(device="cuda:0")

    def __init__(self, look: Callable[[], bool]) -> None:
        super().__init__()
        self.look = look

    def drive(
        self, deliver: Callable[[list[Answer]], None], meanwhile: Callable[[], None] | None = None
    ) -> None:
        while not self.look():
            if meanwhile is not None:
                meanwhile()
        super().drive(deliver)
        self.submitted.clear()


@pytest.fixture
def turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Starts threads that serve as the worker's do; they end with the engine's side of the socket."""
    threads: list[threading.Thread] = []

    def serve() -> None:
        with contextlib.suppress(SystemExit):
            bench.server._take_turns()

    def start() -> None:
        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    def leave(code: int) -> None:  # in the place of the whole process, the thread
        raise SystemExit(code)

    monkeypatch.setattr(server.os, "_exit", leave)
    yield start
    bench.engine.close()
    for thread in threads:
        thread.join(20)


def test_a_thread_that_waits_for_a_gpu_reads_meanwhile(bench: Bench, turns: Callable[[], None]) -> None:
    encoder = WithDevice(lambda: len(encoder.submitted) == 2)
    bench.server.open(cast(Any, SimpleNamespace(encoder=encoder)))
    header = {"kind": "embed", "count": 1, "batch_size": None, "normalize": True}
    for number in (1, 2):
        bench.engine.send(Frame({**header, "id": number}, pack_texts(["a"])))
    bench.engine.send(Frame({"kind": "ping", "id": 3}))
    turns()
    assert {bench.receive().id for _ in range(3)} == {1, 2, 3}


def test_the_other_thread_reads_while_the_model_is_needed_for_something_else(
    bench: Bench, turns: Callable[[], None]
) -> None:
    free = threading.Event()
    bench.server.open(cast(Any, SimpleNamespace(encoder=WithDevice(lambda: free.wait(20)))))
    bench.server._aside.add(7)  # a canary is under way
    header = {"kind": "embed", "id": 1, "count": 1, "batch_size": None, "normalize": True}
    bench.engine.send(Frame(header, pack_texts(["a"])))
    bench.engine.send(Frame({"kind": "ping", "id": 2}))
    turns()
    turns()
    assert bench.receive().header == {"kind": "pong", "id": 2}
    free.set()
    assert bench.receive().id == 1
