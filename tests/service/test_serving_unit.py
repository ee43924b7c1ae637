"""The systemd user unit: its text, and how systemctl and journalctl are driven."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from embedctl.errors import ServiceError
from embedctl.serving.systemd import UserUnit, kept_environment
from embedctl.serving.unit import unit_text
from tests.support.command_line import CommandLine
from tests.support.control import served
from tests.support.fake_engine import FakeEngine

GOLDEN = Path(__file__).parent / "golden" / "embedctl.service"

SHOWN = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=4711\n"


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


@pytest.fixture
def tools(bin_folder: Path) -> Path:
    """Fake systemctl, loginctl and journalctl; the file lists what they were called with."""
    calls = bin_folder / "calls"
    for name, answer in (("systemctl", SHOWN), ("loginctl", "no\n"), ("journalctl", "a line\n")):
        program(bin_folder / name, f"echo {name} \"$@\" >> '{calls}'\nprintf '{answer}'".replace("\n'", "'"))
    calls.touch()
    return calls


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(FakeEngine(), capfd)


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_text_of_the_unit() -> None:
    text = unit_text(
        ["/opt/my venv/bin/python", "-m", "embedctl", "serve"],
        description="embedctl: 100% of it",
        environment={"HF_HOME": '/data/"q" $x %h', "EMBEDCTL_HOME": "/srv/embedctl"},
        stop_timeout_s=60.0,
    )
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("two words", '"two words"'),
        ("$HOME/100%", "$$HOME/100%%"),
        ('say "x" \\', '"say \\"x\\" \\\\"'),
        ("", '""'),
        ("line\nbreak", '"line\\nbreak"'),
    ],
)
def test_words_of_a_command_are_read_back_by_systemd_as_they_were(word: str, written: str) -> None:
    text = unit_text([word], description="", environment={}, stop_timeout_s=1.0)
    assert f"ExecStart={written}\n" in text


def test_install_start_status_stop_logs_uninstall(
    tools: Path, cli: CommandLine, home: Path, tmp_path: Path
) -> None:
    unit = tmp_path / "config" / "systemd" / "user" / "embedctl.service"
    outcome = cli("service", "install")
    assert (outcome.code, outcome.out.strip()) == (0, str(unit))
    assert "EMBEDCTL_HOME, HF_HOME" in outcome.err
    assert "enable-linger" in outcome.err
    text = unit.read_text()
    assert f"ExecStart={sys.executable} -P -m embedctl serve\n" in text
    assert f"Environment=EMBEDCTL_HOME={home}\n" in text
    assert "TimeoutStopSec=60\n" in text
    assert cli("service", "start").code == 0
    with served(FakeEngine(), home):
        outcome = cli("service", "status")
    assert outcome.code == 0
    assert "active (running), starts at login" in outcome.out
    assert f"the service (PID {os.getpid()}): active native; native ready, ollama ready" in outcome.out
    assert cli("service", "restart").code == 0
    assert cli("service", "stop").code == 0
    assert cli("service", "logs", "-n", "7").out.strip() == "a line"
    assert cli("service", "uninstall").code == 0
    assert not unit.exists()
    assert [line.split(" ", 1)[1] for line in tools.read_text().splitlines()] == [
        "--user daemon-reload",
        "--user enable embedctl.service",
        f"show-user {os.getuid()} --property=Linger --value",
        "--user start embedctl.service",
        "--user show embedctl.service --property=LoadState,ActiveState,SubState,UnitFileState,MainPID",
        "--user restart embedctl.service",
        "--user stop embedctl.service",
        "--user --unit=embedctl.service --lines=7 --no-pager",
        "--user disable --now embedctl.service",
        "--user daemon-reload",
    ]


def test_the_demo_has_a_unit_of_its_own(tools: Path, cli: CommandLine, tmp_path: Path) -> None:
    assert cli("--demo", "service", "install").code == 0
    text = (tmp_path / "config" / "systemd" / "user" / "embedctl-demo.service").read_text()
    assert "-P -m embedctl --demo serve\n" in text


def test_status_as_json_says_that_nobody_answers(tools: Path, cli: CommandLine, home: Path) -> None:
    outcome = cli("service", "status", "--json")
    found = json.loads(outcome.out)["data"]
    assert outcome.code == 1
    assert found["unit"]["pid"] == 4711
    assert (found["answers"], found["status"]) == (None, None)
    assert found["socket"] == str(home / "run" / "control.sock")


def test_without_systemd_there_is_a_remedy(bin_folder: Path, cli: CommandLine, home: Path) -> None:
    for words in (("install",), ("start",), ("stop",), ("logs",)):
        outcome = cli("service", *words)
        assert outcome.code == 2
        assert "embedctl serve" in outcome.err
    with served(FakeEngine(), home):
        outcome = cli("service", "status")
    assert outcome.code == 0
    assert "unknown (this system is not run by systemd" in outcome.out


def test_a_manager_that_cannot_be_reached_has_a_remedy(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder / "systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1")
    with pytest.raises(ServiceError, match="systemctl --user daemon-reload failed") as caught:
        UserUnit("x.service", tmp_path).install("text")
    assert "No medium" in caught.value.why
    assert "su or sudo" in caught.value.remedy


def test_a_user_whom_logind_does_not_know_does_not_linger(
    tools: Path, bin_folder: Path, cli: CommandLine
) -> None:
    program(bin_folder / "loginctl", "echo 'User ID 0 is not logged in or lingering' >&2; exit 1")
    outcome = cli("service", "install")
    assert outcome.code == 0, outcome.err
    assert "enable-linger" in outcome.err


@pytest.mark.parametrize("before", [None, "an older unit"])
@pytest.mark.parametrize("refused", ["daemon-reload", "enable"])
def test_an_install_that_fails_leaves_all_as_it_was(
    tools: Path, bin_folder: Path, tmp_path: Path, refused: str, before: str | None
) -> None:
    script = f"echo \"$2\" >> '{tools}'; test \"$2\" != {refused} || {{ echo 'is masked' >&2; exit 1; }}"
    program(bin_folder / "systemctl", script)
    unit = UserUnit("x.service", tmp_path / "units")
    if before is not None:
        unit.file.parent.mkdir()
        unit.file.write_text(before)
    with pytest.raises(ServiceError, match=f"--user {refused}.* failed"):
        unit.install("a new unit")
    assert (unit.file.read_text() if unit.file.exists() else None) == before
    assert tools.read_text().split()[-1] == "daemon-reload"  # so that systemd forgets what it may have read


def test_what_is_not_installed_is_not_started(tools: Path, cli: CommandLine) -> None:
    outcome = cli("service", "start")
    assert outcome.code == 2
    assert "embedctl service install" in outcome.err
    assert tools.read_text() == ""


def test_no_secret_goes_into_the_unit() -> None:
    shell = {
        "HF_TOKEN": "hf_x",
        "EMBEDCTL_API_KEY": "k",
        "OLLAMA_HOST": "http://u:p@h",
        "HF_HOME": "/m",
        "XDG_STATE_HOME": "/logs",
        "PATH": "p",
    }
    assert kept_environment(shell) == {"HF_HOME": "/m", "XDG_STATE_HOME": "/logs"}


def test_the_socket_is_named_for_others_to_forward(cli: CommandLine, home: Path) -> None:
    path = str(home / "run" / "control.sock")
    assert (cli("service", "socket").code, cli("service", "socket").out.strip()) == (1, path)
    with served(FakeEngine(), home):
        outcome = cli("service", "socket")
    assert (outcome.code, outcome.out.strip()) == (0, path)
