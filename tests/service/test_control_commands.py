"""The command line over a service: the same answers as over an engine of its own, and it says so."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.cli.app import globals_
from embedctl.control.jobs import RemoteJob
from embedctl.control.server import ControlServer
from embedctl.paths import Paths
from embedctl.records import BackendState, JobUpdate
from tests.support import canned
from tests.support.command_line import CommandLine
from tests.support.control import client, served
from tests.support.fake_engine import FakeEngine
from tests.support.fake_world import FakeJob

ATTACHED = f"attached to the service (PID {os.getpid()}); --no-attach runs an engine of its own\n"
LINES = (
    ("status", "--json"),
    ("doctor",),
    ("switch", "ollama", "--dry-run"),
    ("switch", "ollama", "--json"),
    ("embed", "one", "two", "--json"),
    ("models", "list", "--offline"),
    ("models", "download"),
    ("models", "verify", "--json"),
    ("models", "remove", "--yes"),
    ("bench", "run", "--json"),
    ("bench", "list"),
    ("bench", "show", "3", "--json"),
    ("bench", "show", "99"),
    ("bench", "compare", "3", "7"),
    ("history", "--since", "2026-03-04T11:50", "--until", "2026-03-04T12:00", "--json"),
    ("history", "--since", "2026-03-04T11:59", "--until", "2026-03-04T12:00", "--csv", "-"),
)


@pytest.fixture(autouse=True)
def _fresh_options() -> Iterator[None]:
    yield
    globals_.demo, globals_.debug, globals_.attach = False, False, True


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """The engines that commands opened for themselves."""
    engines: list[FakeEngine] = []

    def open_engine(**_: object) -> FakeEngine:
        engines.append(FakeEngine(jobs="immediate"))
        return engines[-1]

    monkeypatch.setattr("embedctl.engine.opening.open_engine", open_engine)
    return engines


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(FakeEngine(), capsys)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_a_command_answers_alike_over_a_service(
    words: tuple[str, ...], cli: CommandLine, own: list[FakeEngine], home: Path
) -> None:
    fake = FakeEngine(jobs="immediate")
    with served(fake, home):
        attached = cli(*words)
        alone = cli("--no-attach", *words)
    assert (attached.code, attached.out) == (alone.code, alone.out)
    assert attached.err == ATTACHED + alone.err
    assert [engine.closed for engine in own] == [True]
    assert [name for name, *_ in fake.calls] == [name for name, *_ in own[0].calls if name != "close"]
    assert not fake.closed


def test_a_demo_attaches_to_a_demo_alone(cli: CommandLine, own: list[FakeEngine], home: Path) -> None:
    with served(FakeEngine(), home):
        assert "attached" not in cli("--demo", "bench", "list").err
    with served(FakeEngine(demo=True), home / "demo"):
        assert "attached" in cli("--demo", "bench", "list").err
        assert "attached" not in cli("bench", "list").err
    assert len(own) == 2


def test_settings_of_this_shell_that_have_no_effect_there_are_told(
    cli: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDCTL_NATIVE__DTYPE", "float32")
    with served(FakeEngine(), home):
        assert "EMBEDCTL_NATIVE__DTYPE: without effect there" in cli("bench", "list").err


def test_an_unloaded_backend_is_loaded_over_there(cli: CommandLine, home: Path) -> None:
    fake = FakeEngine(jobs="immediate", native=canned.native(BackendState.UNLOADED))
    with served(fake, home):
        assert cli("embed", "one").code == 0
    assert [call[0] for call in fake.calls] == ["load", "embed"]


def test_ctrl_c_cancels_the_job_over_there(
    cli: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    presses, wait = [KeyboardInterrupt()], RemoteJob.wait

    def waiting(self: RemoteJob, timeout: float | None = None) -> JobUpdate:
        if presses:
            raise presses.pop()
        return wait(self, timeout)

    monkeypatch.setattr(RemoteJob, "wait", waiting)
    fake = FakeEngine()
    with served(fake, home):
        outcome = cli("models", "download")
    assert outcome.code == 130
    assert "cancelled" in outcome.err
    assert fake.running == {}


class Leaving(FakeEngine):
    """Its service ends as soon as a load has begun."""

    server: ControlServer

    def load(self, backend: str) -> FakeJob:
        job = super().load(backend)
        threading.Thread(target=self.server.stop).start()
        return job


def test_a_service_that_goes_away_under_a_command_is_told(
    cli: CommandLine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.control.connection._GIVE_UP_S", 0.0)
    fake = Leaving(native=canned.native(BackendState.UNLOADED))
    with served(fake, home) as fake.server:
        outcome = cli("embed", "one")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the connection to the service" in outcome.err.lower()
    assert "try:" in outcome.err


def test_a_console_with_an_engine_of_its_own_lets_others_attach(
    own: list[FakeEngine], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedctl.cli import entry

    seen: list[str] = []

    def shown(open_engine: object, *, demo: bool, slow: bool) -> int:
        assert slow
        engine = open_engine()  # type: ignore[operator]
        with client(home) as other:
            other.switch("ollama")
            seen.append(other.connection.where)
        assert engine.active == "ollama"
        again = entry.open_or_attach(_Nothing(), demo=demo, attach=True)  # type: ignore[arg-type]
        seen.append(again.connection.where)
        again.close()
        engine.close()
        return 0

    monkeypatch.setattr("embedctl_console.main", shown)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert entry.main(["console", "--slow"]) == 0
    assert seen == [f"the console (PID {os.getpid()})"] * 2
    assert len(own) == 1
    assert not Paths.in_folder(home).socket.exists()


class _Nothing:
    def callback(self, _: object) -> None:
        raise AssertionError("an attached console holds no socket")
