"""`serve` over a scripted engine and a stand-in for the gateway: what starts, what it says, how it ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedctl.cli.service import stop_on_signals
from embedctl.control.attach import attach
from embedctl.control.client import RemoteEngine
from embedctl.errors import ServiceError, UsageError
from embedctl.paths import Paths
from embedctl.records import JobState
from embedctl.serving import daemon
from embedctl.serving.notify import notify
from embedctl.settings import GatewaySettings
from tests.support.control import served
from tests.support.fake_engine import FakeEngine


class Recorder:
    """Stands in for the gateway and the engine's end: keeps the order of what happens."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.settings: GatewaySettings | None = None
        self.refuses = False
        self.drained = True
        self.listener: socket.socket | None = None

    def gateway(self, engine: FakeEngine, settings: GatewaySettings) -> Recorder:
        self.settings = settings
        return self

    def start(self, listener: socket.socket | None) -> str:
        if self.refuses:
            raise UsageError("The address is in use")
        self.steps.append("gateway listens")
        return "http://127.0.0.1:11435"

    def drain(self) -> bool:
        self.steps.append("gateway drains")
        return self.drained

    def stop(self) -> None:
        self.steps.append("gateway stops")


class Served:
    """A daemon on a thread, with what it says."""

    def __init__(self, engine: FakeEngine, path: Path, **options: Any) -> None:
        self.stop = threading.Event()
        self.said: list[str] = []
        self._changed = threading.Condition()
        self.thread = threading.Thread(
            target=daemon.serve, args=(lambda: engine, path, self.stop, self.say), kwargs=options
        )
        self.thread.start()

    def say(self, text: str) -> None:
        with self._changed:
            self.said.append(text)
            self._changed.notify_all()

    def wait_for(self, part: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(part in text for text in self.said), 10.0), self.said

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10.0)
        assert not self.thread.is_alive()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(daemon, "Gateway", found.gateway)
    return found


@pytest.fixture
def path(home: Path) -> Path:
    return Paths.in_folder(home).socket


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10.0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def attached(path: Path) -> RemoteEngine:
    found = attach(Paths.find())
    assert found is not None
    return found


def test_it_serves_says_so_and_ends_in_order(
    recorder: Recorder, path: Path, systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()

    def close() -> None:
        recorder.steps.append("engine closes")
        fake.job("download").cancel()

    monkeypatch.setattr(fake, "close", close)
    running = Served(fake, path)
    assert systemd.recv(1000).decode().splitlines()[0] == "READY=1"
    assert running.said[0] == f"serving native on http://127.0.0.1:11435; control socket {path}"
    remote = attached(path)
    fake.job("load").finish()
    running.wait_for("Load native: done")
    job = remote.download()
    running.end()
    assert systemd.recv(1000).decode().splitlines()[0] == "STOPPING=1"
    assert recorder.steps == ["gateway listens", "gateway drains", "gateway stops", "engine closes"]
    assert job.wait(10.0).state is JobState.CANCELLED  # its client was told before the connection ended
    assert not path.exists()
    remote.close()


def test_host_and_port_go_before_the_settings(recorder: Recorder, path: Path) -> None:
    running = Served(FakeEngine(), path, host="0.0.0.0", port=0, load=False)
    running.wait_for("serving")
    running.end()
    assert recorder.settings is not None
    assert (recorder.settings.host, recorder.settings.port) == ("0.0.0.0", 0)
    assert not any("Load" in text for text in running.said)


def test_a_model_that_does_not_load_is_told_and_the_service_goes_on(recorder: Recorder, path: Path) -> None:
    fake = FakeEngine()
    running = Served(fake, path)
    running.wait_for("serving")
    fake.job("load").fail("No memory", why="full", remedy="unload the other")
    running.wait_for("No memory — full — unload the other")
    running.end()
    fake.errors["load"] = UsageError("Load native: not started")
    running = Served(fake, path)
    running.wait_for("not started")
    running.end()


def test_requests_that_were_cut_off_are_told(recorder: Recorder, path: Path) -> None:
    recorder.drained = False
    running = Served(FakeEngine(), path, load=False)
    running.wait_for("serving")
    running.end()
    running.wait_for("cut off")


def test_an_address_in_use_leaves_nothing_behind(recorder: Recorder, path: Path) -> None:
    recorder.refuses, fake = True, FakeEngine()
    with pytest.raises(UsageError, match="in use"):
        daemon.serve(lambda: fake, path, threading.Event(), print)
    assert fake.closed
    assert attach(Paths.find()) is None
    recorder.refuses = False
    running = Served(FakeEngine(), path, load=False)
    running.wait_for("serving")
    running.end()


def test_a_second_one_is_refused_before_it_opens_an_engine(
    recorder: Recorder, home: Path, path: Path
) -> None:
    def never() -> FakeEngine:
        raise AssertionError("opened")

    with served(FakeEngine(), home), pytest.raises(ServiceError, match="is in use"):
        daemon.serve(never, path, threading.Event(), print)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_for_the_end_and_a_second_one_insists(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(10.0)
        os.kill(os.getpid(), number)
        threading.Event().wait(10.0)
    assert signal.getsignal(number) is before


def test_without_systemd_nothing_is_notified(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", "@embedctl-no-such-address")
    notify("READY=1")
    assert "could not be told READY=1" in caplog.text
