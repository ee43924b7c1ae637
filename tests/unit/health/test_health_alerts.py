from __future__ import annotations

import http.server
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedctl.health.alerts import Edges
from embedctl.health.delivery import Delivery
from embedctl.records import BackendHealth, Condition, Health

BAD = (Condition.DOWN, Condition.HUNG)


def look(at: float, condition: str, *, active: str = "ollama") -> Health:
    found = BackendHealth("ollama", Condition(condition), "the evidence", at)
    return Health(at, condition == "healthy", active, (found,))


def raised(edges: Edges, *looks: Health) -> list[tuple[float, str]]:
    return [(alert.health.at, alert.title) for each in looks for alert in edges.see(each)]


def test_one_alert_when_it_has_been_bad_for_long_and_one_when_it_is_good_again() -> None:
    looks = [look(at, "healthy") for at in range(0, 60, 5)]
    looks += [look(at, "down") for at in range(60, 300, 5)]
    looks += [look(at, "healthy") for at in range(300, 600, 5)]
    assert raised(Edges(BAD, 30.0), *looks) == [(90, "ollama: down"), (330, "ollama does well again")]


def test_what_flutters_raises_nothing() -> None:
    looks = [look(at, "down" if at % 20 < 10 else "healthy") for at in range(0, 600, 5)]
    assert raised(Edges(BAD, 30.0), *looks) == []


def test_another_bad_condition_is_the_same_spell() -> None:
    looks = [look(0, "down"), look(40, "hung"), look(80, "down"), look(120, "idle"), look(160, "idle")]
    assert raised(Edges(BAD, 30.0), *looks) == [(40, "ollama: hung"), (160, "ollama does well again")]


def test_what_nobody_asked_for_is_not_bad_and_what_is_not_known_is_neither() -> None:
    looks = [
        look(0, "healthy"),
        look(40, "throttled"),
        look(80, "down"),
        look(100, "unknown"),
        look(120, "down"),
    ]
    assert raised(Edges(BAD, 30.0), *looks) == [(120, "ollama: down")]


def test_a_backend_that_nobody_uses_is_no_news_unless_it_did_well_before() -> None:
    edges = Edges(BAD, 30.0)
    assert raised(edges, look(0, "down", active="native"), look(40, "down", active="native")) == []
    assert raised(edges, look(50, "down")) == [(50, "ollama: down")]
    edges = Edges(BAD, 30.0)
    looks = [
        look(at, condition, active="native") for at, condition in ((0, "healthy"), (5, "hung"), (40, "hung"))
    ]
    assert raised(edges, *looks) == [(40, "ollama: hung")]


def test_without_a_minimum_it_is_told_at_once() -> None:
    assert raised(Edges(BAD, 0.0), look(0, "down"), look(5, "healthy")) == [
        (0, "ollama: down"),
        (5, "ollama does well again"),
    ]


# Delivery


class Hook:
    """A webhook on loopback that answers what a test says."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: list[Any] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(hook.statuses.pop(0) if hook.statuses else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret-token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


def deliver(
    *payloads: dict[str, Any], command: tuple[str, ...] = (), webhook: str | None = None
) -> list[str]:
    """Why what did not arrive did not."""
    failed: list[str] = []
    delivery = Delivery(command, webhook, timeout=5.0, failed=failed.append)
    delivery.start()
    for payload in payloads:
        delivery.send(payload)
    delivery.stop()
    return failed


def test_a_command_gets_the_alert_on_its_standard_input(tmp_path: Path) -> None:
    copy = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    target = tmp_path / "alert.json"
    assert deliver({"condition": "down"}, command=(sys.executable, "-c", copy, str(target))) == []
    assert json.loads(target.read_text()) == {"condition": "down"}


def test_a_command_has_its_environment_without_the_secrets_of_embedctl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("EMBEDCTL_API_KEY", "HF_TOKEN", "OLLAMA_API_KEY", "embedctl_alerts__webhook")
    for name in (*secrets, "PAGER_TOKEN"):
        monkeypatch.setenv(name, "hidden")
    tell = "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ)))"
    target = tmp_path / "environment.json"
    assert deliver({}, command=(sys.executable, "-c", tell, str(target))) == []
    seen = json.loads(target.read_text())
    assert not set(secrets) & set(seen)
    assert (seen["PAGER_TOKEN"], seen["PATH"]) == ("hidden", os.environ["PATH"])


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with code 3"),
        (("/nowhere/to-be-found",), "could not be started: No such file"),
    ],
)
def test_a_command_that_fails_is_told(command: tuple[str, ...], why: str) -> None:
    [told] = deliver({}, command=command)
    assert why in told


def test_a_command_that_hangs_is_ended() -> None:
    hangs = (sys.executable, "-c", "import threading; threading.Event().wait()")
    delivery = Delivery(hangs, None, timeout=0.2, failed=lambda why: None)
    assert "did not end within 0.2 s" in delivery._run({})


def test_a_webhook_gets_every_alert_in_order_and_a_second_attempt(hook: Hook) -> None:
    hook.statuses = [500]
    assert deliver({"n": 1}, {"n": 2}, webhook=hook.url) == []
    assert hook.received == [{"n": 1}, {"n": 1}, {"n": 2}]


@pytest.mark.parametrize(("statuses", "attempts"), [([500, 503], 2), ([404], 1)])
def test_a_webhook_that_refuses_is_told_without_its_address(
    hook: Hook, statuses: list[int], attempts: int
) -> None:
    hook.statuses = list(statuses)
    assert deliver({}, webhook=hook.url) == [f"the webhook answered {statuses[-1]}"]
    assert len(hook.received) == attempts


def test_a_webhook_that_cannot_be_reached_is_told_without_its_address() -> None:
    assert deliver({}, webhook="http://127.0.0.1:9/secret-token") == [
        "the webhook could not be reached: ConnectError"
    ]


def test_where_there_is_nobody_to_tell_nothing_runs() -> None:
    delivery = Delivery((), None, timeout=1.0, failed=lambda why: pytest.fail(why))
    delivery.start()
    for _ in range(100):
        delivery.send({})
    assert not delivery._thread.is_alive()
    delivery.stop()
