"""The console over a service's engine: it says where it is attached, and how the connection stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedctl.errors import ConnectionLostError
from embedctl.events import ConnectionChanged
from embedctl_console.app import ConsoleApp
from embedctl_console.state import ConsoleState
from embedctl_console.widgets.top import machine_line
from tests.support.console import press, running, screen_text, settle
from tests.support.control import client, served
from tests.support.fake_engine import FakeEngine

HERE = ConnectionChanged(True, "the service (PID 4711)")
LOST = ConnectionChanged(False, HERE.where, "it ended", "it is connected anew by itself once it is back")


@pytest.mark.parametrize(
    ("width", "connection", "shown", "hidden"),
    [
        (158, HERE, "⇄ the service (PID 4711)  active native", "lost"),
        (78, HERE, "⇄ attached  active native", "PID"),
        (78, replace(HERE, place="spark"), "⇄ spark  active native", "attached"),
        (78, LOST, "✗ connection lost", "active"),
        (158, None, "active native", "⇄"),
    ],
)
def test_the_top_line(width: int, connection: ConnectionChanged | None, shown: str, hidden: str) -> None:
    line = machine_line(FakeEngine().status(), width, connection).plain
    assert shown in line
    assert hidden not in line
    assert len(line) == width


def test_the_state_keeps_how_it_stands() -> None:
    state = ConsoleState(FakeEngine().status())
    assert state.connection is None
    state.apply_all([HERE, LOST])
    assert state.connection == LOST


async def test_a_loss_and_the_return_are_shown() -> None:
    fake = FakeEngine()
    async with running(fake) as pilot:
        fake.publish(HERE)
        await settle(pilot)
        assert "⇄ the service (PID 4711)" in screen_text(pilot)
        fake.publish(LOST)
        await settle(pilot)
        assert "✗ connection lost" in screen_text(pilot)
        assert [note.message for note in pilot.app._notifications] == [f"{LOST.why}\n{LOST.remedy}"]
        fake.publish(HERE)
        await settle(pilot)
        assert "connected again" in {note.message for note in pilot.app._notifications}
        assert "✗ connection lost" not in screen_text(pilot)


async def test_leaving_asks_nothing_for_the_service_goes_on_with_its_jobs() -> None:
    fake = FakeEngine()
    async with running(fake) as pilot:
        fake.publish(HERE)
        fake.load("ollama")
        await press(pilot, "q")
        assert pilot.app.return_code == 0
        assert not fake.job("load").cancel_asked


async def test_a_console_over_a_real_socket(home: Path) -> None:
    fake = FakeEngine()
    with served(fake, home), client(home) as remote:
        app = ConsoleApp(lambda: remote, clock=fake.clock, flush_every=0.0)
        async with app.run_test(size=(140, 40)) as pilot:
            await settle(pilot)
            assert f"⇄ {remote.connection.where}" in screen_text(pilot)
            assert "BAAI/bge-m3" in screen_text(pilot)
            await press(pilot, "q")
    assert not fake.closed


async def test_looking_again_while_the_connection_is_lost_is_told() -> None:
    fake = FakeEngine()
    async with running(fake) as pilot:
        fake.errors["refresh"] = ConnectionLostError("The service cannot be reached", why="it ended")
        await press(pilot, "r")
        assert "The service cannot be reached" in {note.title for note in pilot.app._notifications}
