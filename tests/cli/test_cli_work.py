"""Commands that do something, over a real engine with scripted backends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.errors import BackendError
from tests.support.command_line import CommandLine
from tests.support.engines import Rig, rig


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
    document = json.loads(cli("history", "--since", "1m", "--json").out)["data"]
    assert document["series"]["host_memory_available"]["unit"] == "bytes"
    assert document["events"][-1]["kind"] == "start"


def test_config_set_and_show(cli: CommandLine, home: Path) -> None:
    assert cli("config", "path").out == f"{home / 'config.toml'}\n"
    assert cli("config", "set", "native.batch_size", "64").code == 0
    assert json.loads(cli("config", "show", "--json").out)["data"]["native"]["batch_size"] == 64
    refused = cli("config", "set", "native.batch_size", "many")
    assert refused.code == 2
    assert "native.batch_size = 'many' is not allowed" in refused.err
    assert "batch_size = 64" in cli("config", "show").out
