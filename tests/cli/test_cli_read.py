"""Commands that only read: what they print, as people and as programs get it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embedctl
from embedctl.records import BackendState, FileState, Finding, Severity
from embedctl.series import History, Series
from tests.support import canned
from tests.support.command_line import CommandLine
from tests.support.fake_engine import FakeEngine

Golden = Callable[[str, str], None]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("status", ("status",)),
        ("models-list", ("models", "list")),
        ("bench-list", ("bench", "list")),
        ("bench-show", ("bench", "show", "7")),
        ("bench-compare", ("bench", "compare", "6", "7")),
        ("doctor", ("doctor",)),
        ("switch-dry-run", ("switch", "ollama", "--dry-run")),
        (
            "inspect",
            ("inspect", "how long is the river", "wie lang ist der Fluss", "-b", "native", "-b", "ollama"),
        ),
    ],
)
def test_what_people_read(cli: CommandLine, golden: Golden, name: str, words: tuple[str, ...]) -> None:
    golden(name, cli(*words).out)


def test_the_mean_of_a_counter_is_no_figure(
    cli: CommandLine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, joules = np.array([0.0, 1.0]), np.array([100.0, 300.0])
    energy = Series("gpu_energy", at, joules, joules, joules, 3.0)
    monkeypatch.setattr(fake, "history", lambda *_, **__: History(0, 60, 1.0, {"gpu_energy": energy}, ()))
    row = cli("history").out.splitlines()[-1]
    assert row.startswith("gpu_energy") and "n/a" in row


def test_with_debug_no_address_is_logged_that_may_hold_a_secret(
    cli: CommandLine, caplog: pytest.LogCaptureFixture
) -> None:
    """httpx logs each request's whole address: a webhook's, a signed one of the Hub's."""
    assert cli("--debug", "config", "path").code == 0
    with caplog.at_level(logging.DEBUG):  # the root logger's
        for client in ("httpx", "httpx2"):
            logging.getLogger(client).info("HTTP Request: POST https://hooks.example/secret")
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("status", ("status",)),
        ("model", ("models", "list")),
        ("runs", ("bench", "list")),
        ("run", ("bench", "show", "7")),
        ("run-comparison", ("bench", "compare", "6", "7")),
        ("doctor", ("doctor",)),
        ("history", ("history", "--since", "2026-03-04T11:45", "--until", "2026-03-04T12:00")),
        ("switch-plan", ("switch", "ollama", "--dry-run")),
        ("embed", ("embed", "one text")),
        ("inspection", ("inspect", "one text")),
    ],
)
def test_every_read_command_gives_one_json_document(
    cli: CommandLine, kind: str, words: tuple[str, ...]
) -> None:
    document = json.loads(cli(*words, "--json").out)
    assert (document["schema_version"], document["kind"]) == (1, kind)
    assert document["data"]


def test_version_and_help_are_fine(cli: CommandLine) -> None:
    assert cli("--version").out == f"embedctl {embedctl.__version__}\n"
    assert cli("--help").code == 0
    assert "bench" in cli("--help").out


@pytest.mark.parametrize("words", [("nonsense",), ("status", "--colour"), ("bench", "show", "x"), ("embed",)])
def test_wrong_usage_is_exit_code_2_and_nothing_on_stdout(cli: CommandLine, words: tuple[str, ...]) -> None:
    outcome = cli(*words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err


def test_an_error_is_three_lines_without_a_traceback(cli: CommandLine) -> None:
    outcome = cli("bench", "show", "99")
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= 3


def test_doctor_says_no_with_exit_code_1_only_for_errors(cli: CommandLine, fake: FakeEngine) -> None:
    fake.findings = (Finding("disk", "little space", Severity.WARNING, "2 GiB"),)
    assert cli("doctor").code == 0
    fake.findings = (Finding("torch", "torch is missing", Severity.ERROR, "not installed", "install it"),)
    outcome = cli("doctor")
    assert outcome.code == 1
    assert "ERROR torch is missing" in outcome.out and "try: install it" in outcome.out


def test_a_missing_figure_is_shown_with_its_reason_and_never_as_zero(
    cli: CommandLine, fake: FakeEngine
) -> None:
    fake.set_machine(canned.without_gpu())
    out = cli("status").out
    assert "no GPU: no NVIDIA driver" in out
    line = next(line for line in cli("status", "--json").out.splitlines() if line)
    assert json.loads(line)["data"]["machine"]["driver"] is None


def test_history_refuses_what_is_no_time_and_no_figure(cli: CommandLine) -> None:
    for text in ("yesterday", "0001-01-01"):
        outcome = cli("history", "--since", text)
        assert "is no time" in outcome.err and "try: " in outcome.err
    assert cli("history", "--since", "999999d").code == 0
    assert "no figure 'speed'" in cli("history", "--metric", "speed").err
    assert "empty" in cli("history", "--since", "2026-03-04", "--until", "2026-03-03").err


def test_models_path_says_no_while_the_model_is_incomplete(cli: CommandLine, fake: FakeEngine) -> None:
    fake.model_status = canned.model(FileState.MISSING)
    outcome = cli("models", "path")
    assert (outcome.code, outcome.out) == (1, "")
    assert "models download" in outcome.err


def test_it_is_told_that_another_process_records(
    cli: CommandLine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = fake.status()
    assert "records" not in cli("status").err
    fake.status = lambda: replace(now, recorder=4242)  # type: ignore[method-assign]
    assert "another embedctl (PID 4242) records" in cli("status").err
    monkeypatch.setattr("embedctl.cli.machine._FIRST_SAMPLE_SECONDS", 0.0)
    fake.status = lambda: replace(now, recorder=4242, recording=False)  # type: ignore[method-assign]
    refused = cli("record")
    assert refused.code == 2
    assert "PID 4242" in refused.err


def test_a_state_is_a_word(cli: CommandLine, fake: FakeEngine) -> None:
    states = {b["state"] for b in json.loads(cli("status", "--json").out)["data"]["backends"]}
    assert states <= {state.value for state in BackendState}


def test_inspect_tells_what_is_cut_and_needs_no_backend_for_it(cli: CommandLine, fake: FakeEngine) -> None:
    fake.token_limit = 4
    for backend in ("native", "ollama"):
        fake.set_backend(getattr(canned, backend)(BackendState.UNLOADED))
    outcome = cli("inspect", "a b c d")
    assert outcome.code == 0
    assert "4 of 6 tokens are read, characters 4 to 7 are lost" in outcome.out
    assert "▁b│[cut: 2 not read]│▁c│▁d│</s>" in outcome.out
    assert "no backend is loaded" in outcome.err
    data = json.loads(cli("inspect", "a b c d", "--json").out)["data"]
    assert (data["tokens"]["texts"][0]["lost"], data["backends"], data["nearest"]) == ([3, 5], [], None)


def test_inspect_compares_the_backends_and_searches_own_passages(
    cli: CommandLine, fake: FakeEngine, tmp_path: Path
) -> None:
    file = tmp_path / "passages.txt"
    file.write_text("a river\na bridge\n", encoding="utf-8")
    words = ("inspect", "the bridge", "a river", "--passages", str(file), "--nearest", "1", "--json")
    data = json.loads(cli(*words).out)["data"]
    assert [found[0]["text"] for found in data["nearest"]["found"]] == ["a bridge", "a river"]
    assert data["between"] == pytest.approx([1.0, 1.0])
    assert data["backends"][0]["norms"] == pytest.approx([1.0, 1.0])
    assert data["backends"][1]["cosines"][0][0] == pytest.approx(1.0)
    assert cli("inspect").code == 2
    assert cli("inspect", "a", "--file", str(file)).code == 2


def test_the_console_says_that_it_needs_a_terminal(cli: CommandLine) -> None:
    outcome = cli()
    assert (outcome.code, outcome.out) == (2, "")
    assert "needs a terminal" in outcome.err
    assert "try: " in outcome.err


def test_the_path_of_a_webhook_is_a_secret(cli: CommandLine) -> None:
    told = cli("config", "set", "alerts.webhook", "https://hooks.example.org/s3cret?token=s3cret")
    assert told.code == 0
    for each in (told, cli("config", "show"), cli("config", "show", "--json")):
        assert "https://hooks.example.org/…" in each.out + each.err
        assert "s3cret" not in each.out + each.err


def test_a_password_in_an_address_is_not_shown(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCTL_OLLAMA__HOST", "http://ada:s3cret@example.org:11434")
    for words in (("config", "show"), ("config", "show", "--json")):
        out = cli(*words).out
        assert "example.org:11434" in out
        assert "s3cret" not in out
    assert "s3cret" not in cli("config", "set", "ollama.host", "http://ada:s3cret@example.org").err
