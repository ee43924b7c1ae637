"""The connection: who may listen, who may come, what happens when it breaks."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import embedctl
from embedctl.control.attach import attach
from embedctl.control.client import RemoteEngine
from embedctl.control.endpoint import Endpoint
from embedctl.control.jobs import RemoteJobs
from embedctl.control.link import Link
from embedctl.control.mailbox import Mailbox
from embedctl.control.protocol import Hello
from embedctl.control.server import _Session
from embedctl.errors import ConnectionLostError, ServiceError
from embedctl.events import (
    ActiveChanged,
    BackendChanged,
    ConnectionChanged,
    EventRecorded,
    JobChanged,
    MachineSeen,
    Message,
    SampleTaken,
)
from embedctl.paths import Paths
from embedctl.records import BackendState, Event, JobState, JobUpdate
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame
from tests.support import canned
from tests.support.control import Heard, client, served
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def path(home: Path) -> Path:
    return Paths.in_folder(home).socket


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedctl.control.connection._PAUSES", (0.01,))


def connected(*states: bool) -> Callable[[list[Message]], bool]:
    """The connection has gone through these states, one after the other."""
    return lambda heard: tuple(m.connected for m in heard if isinstance(m, ConnectionChanged)) == states


# Who listens


def test_nobody_listens(home: Path) -> None:
    assert attach(Paths.in_folder(home)) is None


def test_only_its_user_may_reach_the_socket(home: Path, path: Path) -> None:
    with served(FakeEngine(), home):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


def test_a_stale_socket_is_recognised_and_replaced(home: Path, path: Path) -> None:
    path.parent.mkdir(parents=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert attach(Paths.in_folder(home)) is None
    with served(FakeEngine(), home), client(home) as remote:
        assert remote.status().active == "native"


def test_who_listens_already_is_named(home: Path, path: Path) -> None:
    with served(FakeEngine(), home, role="console"):
        with pytest.raises(ServiceError) as caught:
            Endpoint.claim(path, "service")
        assert f"a console (PID {os.getpid()})" in caught.value.why
    Endpoint.claim(path, "service").release()


def test_a_killed_listener_leaves_the_way_free(home: Path, path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from embedctl.control.endpoint import Endpoint\n"
        "Endpoint.claim(Path(sys.argv[1]), 'service').listen(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.is_socket()
    with served(FakeEngine(), home), client(home) as remote:
        assert remote.connection.connected


def test_the_socket_of_another_user_is_not_trusted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FakeEngine(), home):
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr("embedctl.control.endpoint._ROOT", 54321)
        with pytest.raises(ServiceError, match="another user"):
            attach(Paths.in_folder(home))


def test_a_link_that_another_user_made_to_a_folder_of_ours_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, link = tmp_path / "ours", tmp_path / "run"
    ours.mkdir(mode=0o755)
    link.symlink_to(ours)
    lstat = Path.lstat

    def made_by_another(self: Path) -> os.stat_result:
        found = list(lstat(self))
        found[stat.ST_UID] = 12345 if self == link else found[stat.ST_UID]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", made_by_another)
    with pytest.raises(ServiceError, match="another user"):
        Endpoint.claim(link / "control.sock", "service")
    assert list(ours.iterdir()) == []
    assert stat.S_IMODE(ours.stat().st_mode) == 0o755


def test_a_long_path_is_made_a_short_one(tmp_path: Path) -> None:
    paths = Paths.in_folder(tmp_path / ("x" * 120))
    assert len(os.fsencode(paths.socket)) < 100
    assert paths.socket == Paths.in_folder(tmp_path / ("x" * 120)).socket
    assert paths.socket != Paths.in_folder(tmp_path / ("y" * 120)).socket


# Who comes


def test_other_versions_are_told_so_with_a_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FakeEngine(), home):
        monkeypatch.setattr(embedctl, "__version__", "9.9.9")
        with pytest.raises(ServiceError, match=r"9\.9\.9.*cannot talk to the service") as caught:
            attach(Paths.in_folder(home))
        assert "--no-attach" in caught.value.remedy


def test_a_listener_that_says_nothing_is_told(
    home: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.control.link.HANDSHAKE_S", 0.05)
    endpoint = Endpoint.claim(path, "service")
    with endpoint.listen(), pytest.raises(ServiceError, match="does not answer"):
        attach(Paths.in_folder(home))
    endpoint.release()


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b""])
def test_a_stranger_does_no_harm(home: Path, path: Path, words: bytes) -> None:
    with served(FakeEngine(), home), socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(words)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) == b""
        with client(home) as remote:
            assert remote.runs()


def test_a_client_that_could_not_be_let_in_is_not_the_last_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FullOnce:
        """A listener whose process has no file descriptor left, for a moment."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.full = True

        def accept(self) -> tuple[socket.socket, object]:
            if self.full:
                self.full = False
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.listener, name)

    listen = Endpoint.listen
    monkeypatch.setattr(Endpoint, "listen", lambda self: FullOnce(listen(self)))
    with served(FakeEngine(), home), client(home) as remote:
        assert remote.runs()
    assert "Too many open files" in caplog.text


def test_who_is_being_greeted_while_it_stops_is_not_served(
    home: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in, greet = threading.Event(), _Session.greet
    monkeypatch.setattr(_Session, "greet", lambda self: (let_in.set(), greet(self))[1])
    with served(FakeEngine(), home) as server, socket.socket(socket.AF_UNIX) as late:
        late.connect(str(path))
        late.settimeout(10.0)
        assert let_in.wait(10.0)
        server.stop()
        channel = Channel(late)
        channel.send(Frame({"kind": "hello", "version": embedctl.__version__}))
        heard = channel.receive()
        assert heard is not None
        assert heard.kind == "hello"
        assert channel.receive() is None


# News


def test_messages_come_as_they_were_published(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home), client(home) as remote:
        remote.subscribe(heard)
        remote.runs()  # the wish to hear has arrived before this
        fake.tick()
        fake.set_active("ollama")
        event = Event(1.0, "note", "t", detail={"a": [1, 2]})
        fake.record(event)
        heard.wait_for(lambda found: EventRecorded(event) in found)
        expected = [
            ConnectionChanged(True, f"the service (PID {os.getpid()})"),
            SampleTaken(fake.sample(), fake.processes()),
            ActiveChanged("ollama"),
            EventRecorded(event),
        ]
        assert heard.messages == expected


def test_who_did_not_subscribe_hears_of_jobs_alone(home: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home), client(home) as remote:
        remote._bus.subscribe(heard)
        fake.tick()
        job = remote.load("ollama")
        fake.tick()
        fake.running[job.id].finish()
        job.wait(10.0)
        assert {type(message) for message in heard.messages} == {JobChanged}


def test_several_clients_hear_and_one_that_leaves_disturbs_nobody(home: Path) -> None:
    fake, first, second = FakeEngine(), Heard(), Heard()
    with served(fake, home), client(home) as a:
        a.subscribe(first)
        with client(home) as b:
            b.subscribe(second)
            a.runs(), b.runs()
            fake.tick()
            second.wait_for(lambda found: any(isinstance(m, SampleTaken) for m in found))
        fake.set_active("ollama")
        first.wait_for(lambda found: ActiveChanged("ollama") in found)
        assert not fake.closed
        assert ActiveChanged("ollama") not in second.messages


def test_calls_of_many_threads_do_not_mix(home: Path) -> None:
    fake, wrong = FakeEngine(), []

    def ask(number: int) -> None:
        for i in range(20):
            text = f"{number}-{i}"
            if remote.embed([text]).vectors.tobytes() != twin.embed([text]).vectors.tobytes():
                wrong.append(text)

    twin = FakeEngine()
    with served(fake, home), client(home) as remote:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_client_that_does_not_read_keeps_nobody_waiting(home: Path, path: Path) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, home), socket.socket(socket.AF_UNIX) as sleeper, client(home) as remote:
        sleeper.connect(str(path))
        channel = Channel(sleeper)
        channel.send(Frame({"kind": "hello", "version": embedctl.__version__}))
        assert channel.receive() is not None
        channel.send(Frame({"kind": "subscribe"}))
        remote.subscribe(heard)
        remote.runs()
        for _ in range(3_000):  # far more than a socket holds
            fake.tick()
        last = SampleTaken(fake.sample(), fake.processes())
        heard.wait_for(lambda found: last in found)


# In a mailbox


def test_a_mailbox_keeps_the_latest_of_what_is_superseded_and_every_fact() -> None:
    box, fake = Mailbox(), FakeEngine()
    facts = [EventRecorded(Event(float(i), "note", f"fact {i}")) for i in range(3)]
    samples = [SampleTaken(canned.sample(float(i)), ()) for i in range(5)]
    for message in (samples[0], facts[0], *samples[1:], BackendChanged(fake.backends["native"]), *facts[1:]):
        box.put(message)
    taken = [box.take() for _ in range(5)]
    assert [found[0] for found in taken if found] == [
        facts[0], samples[4], BackendChanged(fake.backends["native"]), *facts[1:]
    ]  # fmt: skip
    assert [found[1] for found in taken if found] == [4, 0, 0, 0, 0]
    box.close()
    assert box.take() is None


def test_a_mailbox_that_nobody_empties_drops_the_oldest() -> None:
    box = Mailbox()
    facts = [EventRecorded(Event(float(i), "note", f"fact {i}")) for i in range(1_200)]
    for fact in facts:
        box.put(fact)
    assert box.take() == (facts[200], 200)


def test_a_mailbox_that_stays_empty_says_so() -> None:
    with pytest.raises(TimeoutError):
        Mailbox().take(0.0)


# Silence


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


# Jobs that are remembered


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


# When it breaks


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
