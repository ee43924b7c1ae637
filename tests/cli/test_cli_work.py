"""Commands that do something, over a real engine with scripted backends."""

from __future__ import annotations

import json
import signal
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.cli.jobs import _ProgressLine
from embedctl.errors import BackendError
from embedctl.progress import CancelToken
from tests.support.command_line import CommandLine
from tests.support.engines import Rig, rig
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def real(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with rig(tmp_path / "rig") as made:
        close = made.engine.close
        monkeypatch.setattr(made.engine, "close", lambda: None)  # one engine for several command lines
        cli.engine = made.engine
        yield made
        monkeypatch.setattr(made.engine, "close", close)


def test_switch_tells_its_steps_on_stderr_and_its_result_on_stdout(cli: CommandLine, real: Rig) -> None:
    outcome = cli("switch", "ollama")
    assert outcome.code == 0
    assert outcome.out.startswith("native → ollama in ")
    steps = [line.split()[:2] for line in outcome.err.splitlines() if line.startswith("  ")]
    assert ["done", "flip"] in steps
    assert real.engine.status().active == "ollama"
    assert "active backend already" in cli("switch", "ollama").err


def test_a_failed_switch_is_exit_code_2_with_the_reason(cli: CommandLine, real: Rig) -> None:
    real.ollama.preflight_error = BackendError("Ollama does not answer", remedy="ollama serve")
    outcome = cli("switch", "ollama")
    assert (outcome.code, outcome.out) == (2, "")
    assert "error: Not switched: native is still the active backend" in outcome.err
    assert "try: ollama serve" in outcome.err
    dry = cli("switch", "ollama", "--dry-run")
    assert dry.code == 1
    assert "not possible: Ollama does not answer" in dry.err


def test_embed_gives_one_array_per_text(cli: CommandLine, real: Rig, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("one\ntwo\nthree\n", encoding="utf-8")
    from_file = cli("embed", "--file", str(file)).out.splitlines()
    assert [len(json.loads(line)) for line in from_file] == [16, 16, 16]
    assert cli("embed", "two").out.splitlines() == [from_file[1]]
    assert cli("embed", "two", "--file", str(file)).code == 2
    assert cli("embed", "--file", str(tmp_path / "absent")).code == 2


def test_only_a_line_feed_ends_a_text(cli: CommandLine, real: Rig, tmp_path: Path) -> None:
    """Form feeds and Unicode's separators stand within texts; a vector too many would shift all others."""
    file = tmp_path / "texts.txt"
    file.write_text("one\u2028still one\x0c\ntwo\n", encoding="utf-8")
    assert len(cli("embed", "--file", str(file)).out.splitlines()) == 2
    file.write_bytes(b"")
    assert "is empty" in cli("embed", "--file", str(file)).err
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in cli("embed", "--file", str(file)).err


def test_a_dry_run_records_nothing(
    cli: CommandLine, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict[str, bool]] = []

    def open_engine(**options: bool) -> FakeEngine:
        opened.append(options)
        return fake

    monkeypatch.setattr("embedctl.engine.opening.open_engine", open_engine)
    cli("switch", "ollama", "--dry-run")
    assert opened[0]["recording"] is False


def test_a_choice_that_a_variable_overrules_is_told(
    cli: CommandLine, real: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_BACKEND", "native")
    assert "EMBEDDING_BACKEND=native is set" in cli("switch", "ollama").err
    assert "EMBEDDING_BACKEND" not in cli("switch", "native").err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(
    cli: CommandLine, real: Rig, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def wait_for_cancel(cancel: CancelToken) -> None:
        assert cancel.wait(30)

    closed: list[bool] = []
    monkeypatch.setattr(real.engine, "close", lambda: closed.append(True))
    real.ollama.on_load = wait_for_cancel
    monkeypatch.setattr(_ProgressLine, "show", lambda *_: signal.raise_signal(number))
    before = signal.getsignal(number)
    outcome = cli("switch", "ollama")
    assert outcome.code == 130
    assert "Switch to ollama: cancelled" in outcome.err
    assert closed == [True]
    assert real.engine.status().active == "native"
    assert signal.getsignal(number) is before


def test_a_job_that_does_not_heed_its_cancel_is_given_up(
    cli: CommandLine, real: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def deaf(_: CancelToken) -> None:
        assert release.wait(30)

    real.ollama.on_load = deaf
    monkeypatch.setattr(_ProgressLine, "show", lambda *_: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr("embedctl.cli.jobs._CANCEL_SECONDS", 0.05)
    outcome = cli("switch", "ollama")
    release.set()
    assert outcome.code == 130
    assert "given up" in outcome.err


def test_a_benchmark_is_stored_listed_and_shown(cli: CommandLine, real: Rig) -> None:
    document = json.loads(cli("bench", "run", "--title", "first", "--json").out)
    run = document["data"]
    assert run["id"] == 1
    assert {row["backend"] for row in run["measurements"]} == {"native", "ollama"}
    assert all(row["latencies_ms"] for row in run["measurements"])
    assert "first" in cli("bench", "list").out
    assert "as fast as ollama" in cli("bench", "show", "1").out
    assert real.native.calls == ["load", "unload"]  # it was not loaded before, so it is not afterwards


def test_history_can_be_had_as_csv_and_json(cli: CommandLine, real: Rig, tmp_path: Path) -> None:
    for _ in range(3):
        assert real.engine._latest.wait_until(lambda _: True, 10)
    target = tmp_path / "out.csv"
    outcome = cli("history", "--since", "1m", "--metric", "gpu_memory_used", "--csv", str(target))
    assert outcome.code == 0 and outcome.out == ""
    lines = target.read_text(encoding="utf-8").splitlines()
    assert "gpu_memory_used" in lines[0]
    assert len(lines) >= 2
    assert cli("history", "--since", "1m", "--metric", "gpu_memory_used", "--csv", "-").out.startswith(
        lines[0]
    )
    document = json.loads(cli("history", "--since", "1m", "--json").out)["data"]
    assert document["series"]["host_memory_available"]["unit"] == "bytes"
    assert document["events"][-1]["kind"] == "start"


def test_tune_loads_what_it_measures_and_says_what_is_best(cli: CommandLine, real: Rig) -> None:
    outcome = cli("tune")
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    assert ["4,096", "690,000", "best"] in rows
    assert ["8,192", "692,000", "now"] in rows
    assert "4,096 tokens from the next load on" in outcome.err
    assert "load" in real.native.calls
    assert json.loads(cli("tune", "--json").out)["data"]["token_budget"] == 4096


def test_config_set_and_show(cli: CommandLine, home: Path) -> None:
    assert cli("config", "path").out == f"{home / 'config.toml'}\n"
    assert cli("config", "set", "native.batch_size", "64").code == 0
    assert json.loads(cli("config", "show", "--json").out)["data"]["native"]["batch_size"] == 64
    refused = cli("config", "set", "native.batch_size", "many")
    assert refused.code == 2
    assert "native.batch_size = 'many' is not allowed" in refused.err
    assert "batch_size = 64" in cli("config", "show").out


def test_config_show_is_toml_and_says_what_stands_over_the_file(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("config", "set", "model.repo", 'C:\\models\\a "b"').code == 0
    assert tomllib.loads(cli("config", "show").out)["model"]["repo"] == 'C:\\models\\a "b"'
    monkeypatch.setenv("EMBEDCTL_NATIVE__BATCH_SIZE", "8")
    assert "EMBEDCTL_NATIVE__BATCH_SIZE is set" in cli("config", "set", "native.batch_size", "16").err
