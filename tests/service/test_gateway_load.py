"""The gateway under load: who waits, who is refused, who is cancelled, and a switch under load."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.requests import Request
from starlette.types import Message

from embedctl.errors import BackendAnswerError, BackendOutOfMemoryError, EmbedctlError, WorkerCrashedError
from embedctl.gateway.admission import Admission
from embedctl.gateway.calls import Calls
from embedctl.gateway.problems import Problem
from embedctl.records import JobState
from embedctl.settings import GatewaySettings
from tests.support.engines import GIB
from tests.support.fake_backend import vector_of
from tests.support.gateway_load import under_load
from tests.support.gateways import Served, in_thread, served, vectors, wait_until


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path, max_in_flight=4, max_texts_in_flight=64, max_waiting=3, deadline_s=20) as found:
        yield found


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """For what leaves no request behind and nothing changed."""
    with served(tmp_path_factory.mktemp("steady"), deadline_s=20) as found:
        yield found


def in_flight(made: Served) -> int:
    return made.rig.engine._traffic.in_flight("native")


def waiting(made: Served) -> int:
    loaded = made.gateway._app
    assert loaded is not None
    return loaded.calls.admission.waiting


# Admission ---


async def enter(admission: Admission, *sizes: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(admission.enter(size)) for size in sizes]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def admitted(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() and task.exception() is None for task in tasks]


async def test_bulk_leaves_places_to_queries_and_waits_for_texts_in_flight() -> None:
    admission = Admission(places=4, texts=100, waiting=10)
    bulk = await enter(admission, 60, 60, 30, 10)
    assert admitted(bulk) == [
        True,
        False,
        False,
        False,
    ]  # the second would exceed 100; the rest stands behind
    query = await enter(admission, 1)
    assert admitted(query) == [True]
    admission.leave(60)
    await asyncio.sleep(0)
    assert admitted(bulk) == [True, True, True, False]
    assert admission.texts_in_flight == 91


async def test_a_request_larger_than_the_limit_goes_alone() -> None:
    admission = Admission(places=4, texts=100, waiting=10)
    first, second = await enter(admission, 500, 5)
    assert first.done() and not second.done()
    admission.leave(500)
    await second


async def test_queries_go_first_but_bulk_is_not_starved() -> None:
    admission = Admission(places=1, texts=100, waiting=50)
    await enter(admission, 1)
    bulk = await enter(admission, 10)
    queries = await enter(admission, *[1] * 20)
    for _ in range(8):
        admission.leave(1)
    await asyncio.sleep(0)
    assert admitted(queries).count(True) == 8 and not bulk[0].done()
    admission.leave(1)
    await asyncio.sleep(0)
    assert bulk[0].done()
    admission.leave(10)
    await asyncio.sleep(0)
    assert admitted(queries).count(True) == 9


async def test_too_many_that_wait_are_refused_with_a_time_to_come_back() -> None:
    admission = Admission(places=1, texts=100, waiting=2)
    tasks = await enter(admission, 1, 1, 1, 1)
    problem = tasks[3].exception()
    assert isinstance(problem, Problem) and problem.status == 429
    assert problem.headers["retry-after"] == "1"
    tasks[1].cancel()
    await asyncio.sleep(0)
    assert admission.waiting == 1
    admission.leave(1)
    await tasks[2]
    admission.leave(1)
    assert (admission.in_flight, admission.texts_in_flight, admission.waiting) == (0, 0, 0)


async def test_one_who_gives_up_while_being_let_in_gives_the_place_back() -> None:
    admission = Admission(places=1, texts=100, waiting=5)
    first, second, third = await enter(admission, 1, 1, 1)
    await first
    admission.leave(1)  # the second is let in …
    second.cancel()  # … and gives up before it runs again
    await asyncio.gather(second, return_exceptions=True)
    await third
    assert admission.in_flight == 1


# Over HTTP ---


def test_beyond_the_queue_requests_get_429_and_those_in_it_their_answer(made: Served) -> None:
    made.rig.native.gate = threading.Event()
    asked = [in_thread(lambda n=n: made.embed(f"text {n}")) for n in range(4)]
    wait_until(lambda: in_flight(made) == 4)
    asked += [in_thread(lambda n=n: made.embed(f"text {n}")) for n in range(4, 7)]
    wait_until(lambda: waiting(made) == 3)
    refused = made.embed("one too many")
    assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    made.rig.native.gate.set()
    for number, answer in enumerate(asked):
        np.testing.assert_array_equal(vectors(answer()), [vector_of(f"text {number}")])


@pytest.mark.parametrize("where", ["queue", "backend"])
def test_a_deadline_ends_the_wait_and_frees_the_backend(made: Served, where: str) -> None:
    made.rig.native.gate = threading.Event()
    busy = [in_thread(lambda: made.embed("busy")) for _ in range(4 if where == "queue" else 0)]
    wait_until(lambda: in_flight(made) == len(busy))
    late = made.embed("late", headers={"X-Embedctl-Deadline-Ms": "60"})
    assert late.status_code == 504 and "0.06 s" in late.text
    if where == "backend":
        wait_until(lambda: in_flight(made) == 0)
    made.rig.native.gate.set()
    assert [answer().status_code for answer in busy] == [200] * len(busy)
    wait_until(lambda: made.on_loop(lambda: made.gateway._app.calls.admission.in_flight) == 0)  # type: ignore[union-attr]


@pytest.mark.parametrize("given", ["0", "-1", "1e3", "soon", "", "9" * 20])
def test_a_malformed_deadline_is_refused(steady: Served, given: str) -> None:
    assert steady.embed("a", headers={"X-Embedctl-Deadline-Ms": given}).status_code == 400


def test_a_client_that_goes_away_takes_its_request_back(made: Served) -> None:
    made.rig.native.gate = threading.Event()
    port = int(made.url.rpartition(":")[2])
    body = b'{"model":"bge-m3","input":"a"}'
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    gone = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    for connection in gone[:4]:
        connection.sendall(head + body)
    wait_until(lambda: in_flight(made) == 4)
    for connection in gone[4:]:
        connection.sendall(head + body)
    wait_until(lambda: waiting(made) == 2)
    for connection in gone[4:]:  # first those in the queue: a place that becomes free would let them in
        connection.close()
    wait_until(lambda: waiting(made) == 0)
    for connection in gone[:4]:
        connection.close()
    wait_until(lambda: in_flight(made) == 0)
    assert made.rig.native.taken_back == 4  # the two in the queue never got there
    wait_until(lambda: "embedctl_abandoned_total 6.0" in made.client.get("/metrics").text)
    made.rig.native.gate.set()
    assert made.embed("a").status_code == 200


def test_a_body_that_does_not_arrive_is_not_waited_for_beyond_the_deadline(steady: Served) -> None:
    port = int(steady.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n"
            b"X-Embedctl-Deadline-Ms: 50\r\n\r\n{"
        )
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (WorkerCrashedError("The native worker ended"), 503, True),
        (BackendOutOfMemoryError("Too little memory"), 503, False),
        (BackendAnswerError("Nonsense"), 502, False),
    ],
)
def test_a_backends_failure_says_whether_to_try_again(
    steady: Served, monkeypatch: pytest.MonkeyPatch, error: EmbedctlError, status: int, again: bool
) -> None:
    monkeypatch.setattr(steady.rig.native, "embed_error", error)
    answer = steady.embed("a")
    assert answer.status_code == status and error.what in answer.json()["error"]["message"]
    assert ("Retry-After" in answer.headers) is again
    assert steady.ollama("embed", input="a").status_code == status


def test_a_worker_that_dies_under_a_request_costs_a_second_try_only(made: Served) -> None:
    crashed = threading.Event()

    def crash_once(texts: object) -> None:
        if not crashed.is_set():
            crashed.set()
            raise WorkerCrashedError("The native worker ended while it was needed")

    made.rig.native.on_embed = crash_once
    np.testing.assert_array_equal(vectors(made.embed("a")), [vector_of("a")])
    assert crashed.is_set()


def test_drain_lets_requests_finish_and_takes_no_new_ones(made: Served) -> None:
    made.rig.native.gate = threading.Event()
    asked = in_thread(lambda: made.embed("a"))
    wait_until(lambda: in_flight(made) == 1)
    drained = in_thread(lambda: made.gateway.drain(20))
    port = int(made.url.rpartition(":")[2])

    def closed() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        return False

    wait_until(closed)
    made.rig.native.gate.set()
    assert asked().status_code == 200
    assert drained() is True


def test_what_is_not_finished_when_the_drain_ends_is_told_so(made: Served) -> None:
    made.rig.native.gate = threading.Event()
    asked = in_thread(lambda: made.embed("a"))
    wait_until(lambda: in_flight(made) == 1)
    assert made.gateway.drain(0.05) is False
    answer = asked()
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "stopping"
    assert "Retry-After" in answer.headers
    wait_until(lambda: in_flight(made) == 0)


async def test_a_thread_that_cannot_be_started_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(GatewaySettings())

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(threading.Thread, "start", fail)
    request = Request({"type": "http", "method": "POST", "headers": []}, silent)
    with pytest.raises(RuntimeError):
        async with calls.open(request) as call:
            await call.work(1, lambda until, cancel: None)
    assert (calls.admission.in_flight, calls.admission.texts_in_flight, calls.busy) == (0, 0, False)
    calls.close()


# A switch under load ---


async def test_switches_under_load_lose_mislabel_and_mix_nothing(tmp_path: Path) -> None:
    with served(tmp_path, max_in_flight=32) as made:
        made.rig.ollama.twist = 0.5
        engine = made.rig.engine
        digests = {name: engine.fingerprint(name).digest for name in ("native", "ollama")}

        def right(texts: list[str], backend: str, found: np.ndarray) -> bool:
            twist = made.rig.ollama.twist if backend == "ollama" else 0.0
            return np.array_equal(found, [vector_of(text, twist) for text in texts])

        async with under_load(made.url, 24, right, digests) as seen:
            for number, target in enumerate(("ollama", "native", "ollama", "native")):
                await seen.answers_more(120)
                if number == 2:  # both do not fit at once: requests are held while memory is freed
                    made.rig.probe.others = made.rig.probe.total - 11 * GIB
                job = engine.switch(target, keep_both=number == 0)
                ended = await asyncio.to_thread(job.wait, 60)
                assert ended.state is JobState.DONE, ended
            await seen.answers_more(120)
        assert seen.faults == []
        assert min(seen.answers.values()) >= 120 and set(seen.answers) == {"native", "ollama"}


def held(gate: threading.Event, texts: object) -> None:
    if len(texts) > 1:  # type: ignore[arg-type]
        assert gate.wait(30)


def test_a_bulk_job_does_not_stand_in_the_way_of_queries(tmp_path: Path) -> None:
    """All places that bulk requests may have are taken and more wait; a query is answered at once."""
    with served(tmp_path, max_in_flight=4) as made:
        gate = threading.Event()
        made.rig.native.on_embed = lambda texts: held(gate, texts)
        bulk = [in_thread(lambda: made.embed([f"t{n}" for n in range(50)])) for _ in range(8)]
        wait_until(lambda: in_flight(made) == 3 and waiting(made) == 5)
        assert made.embed("a question").status_code == 200
        gate.set()
        assert [answer().status_code for answer in bulk] == [200] * 8
