from __future__ import annotations

import json
from dataclasses import replace

import pytest

from embedctl.records import Trial
from tests.support.command_line import CommandLine
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def service(fake: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """A service runs, and its engine is the scripted one."""
    monkeypatch.setattr("embedctl.cli.app._attached", lambda: fake)
    return fake


def test_a_trial_is_started_shown_and_stopped(cli: CommandLine, service: FakeEngine) -> None:
    started = cli("trial", "start", "--shadow", "0.25", "--share", "0.05")
    assert started.code == 0, started.err
    assert ("start_trial", Trial("ollama", 0.25, 0.05)) in service.calls
    shown = cli("trial", "status")
    assert shown.out.startswith("ollama on trial beside native for ")
    assert "0.05 answered, 0.25 of the rest shadowed" in shown.out
    assert "least 0.99871, 1st percentile 0.99942, median 0.99997" in shown.out
    assert "7,680 texts compared, 12 requests dropped" in shown.out
    assert cli("trial", "stop").code == 0
    assert ("stop_trial",) in service.calls


def test_without_a_trial_the_answer_is_no(cli: CommandLine, service: FakeEngine) -> None:
    shown = cli("trial", "status")
    assert (shown.code, shown.out, shown.err) == (1, "", "no trial runs\n")
    assert json.loads(cli("trial", "status", "--json").out)["data"] is None
    assert cli("trial", "stop").code == 0


def test_without_shares_a_tenth_is_shadowed(cli: CommandLine, service: FakeEngine) -> None:
    found = json.loads(cli("trial", "start", "ollama", "--json").out)
    assert found["kind"] == "trial"
    assert found["data"]["trial"] == {
        "candidate": "ollama",
        "shadow": 0.1,
        "share": 0.0,
        "advance_after": None,
    }


def test_an_automatic_trial_begins_with_a_shadow_and_shows_how_far_it_is(
    cli: CommandLine, service: FakeEngine
) -> None:
    started = cli("trial", "start", "--advance", "200", "--share", "0.05")
    assert ("start_trial", Trial("ollama", 0.1, 0.05, 200)) in service.calls
    assert "  goes on         after 200 compared requests without a fault, 0 so far\n" in started.out
    assert service.running_trial is not None
    why = "a text's cosine is 0.9310, under 0.99"
    service.running_trial = replace(service.running_trial, rolled_back=why)
    shown = cli("trial", "status").out
    assert f"  rolled back     {why}\n" in shown and "goes on" not in shown


def test_without_a_service_it_says_what_is_needed(
    cli: CommandLine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.cli.app._attached", lambda: None)
    for words in (("start",), ("status",), ("stop",)):
        refused = cli("trial", *words)
        assert refused.code == 2
        assert "no service runs here" in refused.err and "embedctl serve" in refused.err
    assert fake.calls == []


def test_a_share_is_between_0_and_1(cli: CommandLine, service: FakeEngine) -> None:
    assert cli("trial", "start", "--share", "5").code == 2
    assert service.calls == []
