"""When the connection breaks or falls silent: what callers are told, and how it comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import embedctl
from embedctl.control.attach import attach
from embedctl.control.client import RemoteEngine
from embedctl.control.jobs import RemoteJobs
from embedctl.control.link import Link
from embedctl.control.protocol import Hello
from embedctl.errors import ConnectionLostError
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    EventRecorded,
    JobChanged,
    MachineSeen,
    Message,
)
from embedctl.paths import Paths
from embedctl.records import BackendState, Event, JobState, JobUpdate
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame
from tests.support import canned
from tests.support.control import Heard, client, served
from tests.support.fake_engine import FakeEngine


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedctl.control.connection._PAUSES", (0.01,))


def connected(*states: bool) -> Callable[[list[Message]], bool]:
    """The connection has gone through these states, one after the other."""
    return lambda heard: tuple(m.connected for m in heard if isinstance(m, ConnectionChanged)) == states


def mute() -> tuple[socket.socket, Channel]:
    """A connection to what greets like a service, then says and reads nothing, as one that was stopped."""
    ours, theirs = socket.socketpair()
    channel = Channel(theirs)
    channel.send(Frame({"kind": "hello", **asdict(Hello(embedctl.__version__, 4711, "service", "i"))}))
    return ours, channel


@pytest.mark.parametrize("texts", [["a"], ["long" * 1_000_000]], ids=["waits", "cannot even send"])
def test_a_call_without_a_deadline_ends_when_the_service_falls_silent(
    monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    monkeypatch.setattr("embedctl.control.link.SILENCE_S", 0.05)
    lost, gone = [], threading.Event()
    ours, _theirs = mute()

    def on_lost(link: Link) -> None:
        lost.append(link)
        gone.set()

    link = Link(ours, on_message=lambda *_: None, on_lost=on_lost)
    with pytest.raises(ConnectionLostError) as silent:
        link.call("embed", (texts,), {})
    assert "the service (PID 4711)" in silent.value.what
    assert "nothing was heard of it for 0.05 s" in silent.value.why
    assert gone.wait(10.0) and lost == [link] and link.ended
    with pytest.raises(ConnectionLostError):
        link.call("embed", (["a"],), {})


def test_a_service_that_works_for_long_shows_that_it_lives(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.control.link.SILENCE_S", 0.3)
    monkeypatch.setattr("embedctl.control.server.ALIVE_EVERY_S", 0.01)
    signs, take, long_enough = [], Link._take, threading.Event()

    def noted(link: Link, frame: Frame) -> None:
        signs.append(frame.kind)
        if signs.count("alive") == 60:
            long_enough.set()
        take(link, frame)

    monkeypatch.setattr(Link, "_take", noted)
    fake = FakeEngine()
    embed = fake.embed
    monkeypatch.setattr(fake, "embed", lambda *a, **k: (long_enough.wait(20.0), embed(*a, **k))[1])
    with served(fake, home), client(home) as remote:
        assert len(remote.embed(["text"]).vectors) == 1
        assert remote.connection.connected
    assert long_enough.is_set()


def test_a_job_that_runs_is_never_forgotten() -> None:
    jobs = RemoteJobs()
    long = JobUpdate(1, "benchmark", "Benchmark", JobState.RUNNING, "", 0.0)
    jobs.note("i", long)
    for number in range(2, 300):
        jobs.note("i", replace(long, job_id=number, state=JobState.DONE))
    assert len(jobs._last) == 100
    assert jobs.last_word("i", replace(long, step="old")) is long
    assert jobs.last_word("i", replace(long, job_id=299)).state is JobState.DONE
    assert jobs.last_word("i", replace(long, job_id=2)).state is JobState.RUNNING  # what was known of it
    assert [update.job_id for update in jobs.lose("gone")] == [1]


def test_a_service_remembers_a_job_that_runs_whatever_ended_meanwhile(home: Path) -> None:
    fake = FakeEngine()
    with served(fake, home) as server:
        long = JobUpdate(1000, "benchmark", "Benchmark", JobState.RUNNING, "", 0.0)
        fake.publish(JobChanged(long))
        for number in range(1001, 1200):
            fake.publish(JobChanged(replace(long, job_id=number, state=JobState.DONE)))
        assert server._last_words[1000].update is long and len(server._last_words) == 100


def test_a_client_comes_back_by_itself_and_catches_up(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home) as first, client(home) as remote:
        remote.subscribe(heard)
        remote.runs()
        first.stop()
        heard.wait_for(connected(True, False))
        fake.active = "ollama"
        fake.backends["ollama"] = canned.ollama(BackendState.UNLOADED)
        with served(fake, home):
            heard.wait_for(connected(True, False, True))
            heard.wait_for(lambda found: ActiveChanged("ollama") in found)
            assert BackendChanged(fake.backends["ollama"]) in heard.messages
            assert MachineSeen(canned.gb10()) in heard.messages
            assert remote.status().active == "ollama"
            fake.record(event := Event(1.0, "note", "after"))
            heard.wait_for(lambda found: EventRecorded(event) in found)
    lost = next(m for m in heard.messages if isinstance(m, ConnectionChanged) and not m.connected)
    assert lost.why
    assert lost.remedy


def test_a_call_under_way_tells_the_loss(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, asked, leave = FakeEngine(), threading.Event(), threading.Event()

    def refresh() -> tuple[()]:
        asked.set()
        leave.wait(10.0)
        return ()

    monkeypatch.setattr(fake, "refresh", refresh)
    monkeypatch.setattr("embedctl.control.connection._PATIENCE_S", 0.05)
    with served(fake, home) as server, client(home) as remote:
        threading.Thread(target=lambda: (asked.wait(10.0), server.stop())).start()
        with pytest.raises(ConnectionLostError, match="was lost") as caught:
            remote.refresh()
        assert caught.value.retryable
        leave.set()
        with pytest.raises(ConnectionLostError, match="cannot be reached"):
            remote.runs()
        with pytest.raises(ConnectionLostError):
            remote.load("native")
        assert remote.status().active == "native"  # as last known


def test_a_request_with_a_deadline_ends_although_the_service_hangs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, leave = FakeEngine(), threading.Event()
    monkeypatch.setattr(fake, "embed", lambda *_, **__: leave.wait(10.0))
    with served(fake, home), client(home) as remote:
        monkeypatch.setattr("embedctl.control.client.QUICK_S", 0.01)
        with pytest.raises(ConnectionLostError, match="was lost"):
            remote.embed(["x"], timeout=0.01)
        leave.set()


def test_a_job_that_went_on_meanwhile_is_found_again(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home) as server, client(home) as remote:
        remote.subscribe(heard)
        job = remote.load("ollama")
        next(iter(server._sessions)).close()
        heard.wait_for(lambda found: any(isinstance(m, ConnectionChanged) and not m.connected for m in found))
        fake.running[job.id].finish()
        assert job.wait(10.0).state is JobState.DONE
        assert job.update.result == canned.load_report("ollama")


def test_a_job_of_a_service_that_was_started_anew_is_told_to_be_lost(home: Path) -> None:
    with served(FakeEngine(), home) as first, client(home) as remote:
        job = remote.load("ollama")
        first.stop()
        with served(FakeEngine(), home):
            update = job.wait(10.0)
            assert update.failure is not None
            assert "started anew" in update.failure.why
            again = remote.load("ollama")
            assert (again.id, again.update.state) == (job.id, JobState.RUNNING)


def test_after_a_loss_only_ends_that_were_not_told_before_are_told(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()

    def ended() -> list[str]:
        updates = [message.update for message in heard.messages if isinstance(message, JobChanged)]
        return [update.kind for update in updates if update.state is not JobState.RUNNING]

    with served(fake, home) as server:
        fake.verify().finish()  # before anybody was there to hear of it
        long = fake.benchmark()
        with client(home) as remote:

            def lose(times: int) -> None:
                for session in list(server._sessions):
                    session.close()
                heard.wait_for(connected(True, *[False, True] * times))

            remote.subscribe(heard)
            remote.runs()
            fake.load("ollama").finish()
            lose(1)
            long.finish()
            heard.wait_for(lambda _: "benchmark" in ended())
            lose(2)
            fake.check().finish()
            heard.wait_for(lambda _: "check" in ended())
            assert ended() == ["load", "benchmark", "check"]


def test_a_job_that_was_given_up_and_runs_on_is_heard_of_again() -> None:
    jobs = RemoteJobs()
    runs = JobUpdate(1, "benchmark", "Benchmark", JobState.RUNNING, "", 0.0)
    done = replace(runs, state=JobState.DONE)
    jobs.meet("i", 1, (runs,))
    assert [update.state for update in jobs.lose("gone")] == [JobState.FAILED]
    assert jobs.note("i", runs)
    assert [update.job_id for update in jobs.lose("gone again")] == [1]
    assert jobs.note("i", done)
    assert not jobs.note("i", done)
    assert not jobs.note("i", runs)
    assert jobs.last_word("i", runs) is done


def test_jobs_are_given_up_when_nobody_comes_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedctl.control.connection._GIVE_UP_S", 0.0)
    with served(FakeEngine(), home) as server, client(home) as remote:
        job = remote.load("ollama")
        server.stop()
        update = job.wait(10.0)
        assert update.failure is not None
        assert "embedctl status" in update.failure.remedy


def test_detaching_closes_nothing_over_there(home: Path) -> None:
    fake = FakeEngine()
    with served(fake, home):
        with client(home) as remote:
            job = remote.load("ollama")
        assert job.wait(0.0).failure is not None
        assert fake.running[job.id].update.state is JobState.RUNNING
        assert not fake.closed
        with pytest.raises(ConnectionLostError):
            remote.runs()
        remote.close()


def test_a_client_that_is_gone_takes_its_requests_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, asked, taken_back = FakeEngine(), threading.Event(), threading.Event()

    def embed(texts: list[str], *, cancel: object, **_: object) -> None:
        asked.set()
        if cancel.wait(10.0):  # type: ignore[attr-defined]
            taken_back.set()

    monkeypatch.setattr(fake, "embed", embed)
    with served(fake, home):
        remote = attach(Paths.in_folder(home))
        assert isinstance(remote, RemoteEngine)

        def ask() -> None:
            with pytest.raises(ConnectionLostError):
                remote.embed(["x"])

        thread = threading.Thread(target=ask)
        thread.start()
        assert asked.wait(10.0)
        remote.close()
        assert taken_back.wait(10.0)
        thread.join()
