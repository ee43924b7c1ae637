"""The socket of another machine through ssh; a stand-in on the PATH forwards on this one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.cli.entry import _engine_through, main
from embedctl.control.client import RemoteEngine
from embedctl.control.ssh import SshTunnel
from embedctl.errors import ServiceError
from embedctl.events import ConnectionChanged
from embedctl.paths import Paths
from embedctl.settings import ConsoleSettings
from tests.support.control import Heard, served
from tests.support.fake_engine import FakeEngine

SSH = """#!{python} -IS
import os, signal, socket, sys, threading

words = sys.argv[1:]
print(*words, sep="\\t", file=open({log!r}, "a"))
if "-L" not in words:
    print("Welcome to spark")
    print({remote!r})
    sys.exit({code})
if {refuses!r}:
    print("channel_setup_fwd_listener: forbidden", file=sys.stderr)
    sys.exit(255)
local, remote = words[words.index("-L") + 1].split(":")

def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    for s in (a, b):
        s.shutdown(socket.SHUT_RDWR)

listener = socket.socket(socket.AF_UNIX)
listener.bind(local)
listener.listen()
while True:
    here, _ = listener.accept()
    there = socket.socket(socket.AF_UNIX)
    try:
        there.connect(remote)
    except OSError:
        here.close()
        continue
    for pair in ((here, there), (there, here)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


class FakeSsh:
    """The stand-in: what it answers, and what it was called with."""

    def __init__(self, folder: Path, remote: Path) -> None:
        self._program, self._log, self._remote = folder / "ssh", folder / "calls", remote
        self.answers()

    def answers(self, code: int = 0, *, refuses: bool = False) -> None:
        text = SSH.format(
            python=sys.executable, log=str(self._log), remote=str(self._remote), code=code, refuses=refuses
        )
        self._program.write_text(text)
        self._program.chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        return [line.split("\t") for line in self._log.read_text().splitlines()]


@pytest.fixture
def spark(tmp_path: Path) -> Path:
    """The other machine's home."""
    return tmp_path / "spark"


@pytest.fixture
def ssh(tmp_path: Path, spark: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("embedctl.control.connection._PAUSES", (0.01,))
    return FakeSsh(folder, Paths.in_folder(spark).socket)


@pytest.fixture
def tunnel(ssh: FakeSsh) -> Iterator[SshTunnel]:
    made = SshTunnel("ada@spark")
    yield made
    made.close()


def test_a_service_is_reached_and_again_after_the_tunnel_broke(
    ssh: FakeSsh, tunnel: SshTunnel, spark: Path, home: Path
) -> None:
    fake, heard = FakeEngine(), Heard()
    with served(fake, spark):
        tunnel.open()
        remote = RemoteEngine(
            tunnel.dial, Paths.in_folder(home), place="ada@spark", console=ConsoleSettings(theme="mine")
        )
        remote.subscribe(heard)
        assert remote.connection.where.endswith("on ada@spark")
        assert remote.status() == fake.status()
        assert remote.settings.console.theme == "mine"
        assert remote.paths.exports_dir.is_relative_to(home)
        assert tunnel._process is not None
        tunnel._process.kill()
        heard.wait_for(
            lambda found: (
                [m.connected for m in found if isinstance(m, ConnectionChanged)][-2:] == [False, True]
            )
        )
        assert remote.runs()
        remote.close()
    asked, first, second = ssh.calls
    assert asked == ["ada@spark", "--", "embedctl", "service", "socket"]
    assert first[0] == "-N"
    assert "BatchMode=yes" not in first
    assert "BatchMode=yes" in second  # nothing is asked while the console has the screen


def test_closing_leaves_neither_process_nor_folder(tunnel: SshTunnel, spark: Path) -> None:
    with served(FakeEngine(), spark):
        tunnel.open()
        process, folder = tunnel._process, Path(tunnel._folder.name)
        assert folder.stat().st_mode & 0o777 == 0o700
        tunnel.close()
    assert process is not None
    assert process.poll() is not None
    assert not folder.exists()


def test_what_is_closed_makes_no_tunnel_any_more(
    ssh: FakeSsh, tunnel: SshTunnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console may be left while its connection is just being made anew."""
    made: list[subprocess.Popen[bytes]] = []

    def close_meanwhile(path: Path, *, timeout: float) -> None:
        assert tunnel._process is not None
        made.append(tunnel._process)
        tunnel.close()

    monkeypatch.setattr("embedctl.control.ssh.connect", close_meanwhile)
    with pytest.raises(ServiceError, match="could not be forwarded"):
        tunnel.dial()
    assert made[0].poll() is not None
    with pytest.raises(ServiceError, match="was closed"):
        tunnel.dial()
    assert len(made) == 1


@pytest.mark.parametrize(
    ("code", "said", "remedy"),
    [
        (1, "No embedctl service runs on ada@spark", "service start"),
        (127, "There is no embedctl on ada@spark", "--there"),
        (255, "could not be asked", "try it by hand"),
    ],
)
def test_what_ssh_could_not_do_is_told(
    code: int, said: str, remedy: str, ssh: FakeSsh, tunnel: SshTunnel
) -> None:
    ssh.answers(code)
    with pytest.raises(ServiceError, match=said) as caught:
        tunnel.open()
    assert remedy in caught.value.remedy


def test_a_server_that_forbids_the_tunnel_is_told(ssh: FakeSsh, tunnel: SshTunnel) -> None:
    ssh.answers(refuses=True)
    with pytest.raises(ServiceError, match="could not be forwarded") as caught:
        tunnel.open()
    assert caught.value.why == "channel_setup_fwd_listener: forbidden"


def test_a_service_that_ended_meanwhile_is_told(tunnel: SshTunnel, home: Path) -> None:
    tunnel.open()  # its path is known there, yet nobody listens any more
    with pytest.raises(ServiceError, match="hung up") as ended:
        RemoteEngine(tunnel.dial, Paths.in_folder(home))
    assert tunnel.explain(ended.value) is ended.value


def test_the_demo_and_another_command_are_asked_for(ssh: FakeSsh, spark: Path) -> None:
    with served(FakeEngine(), spark):
        tunnel = SshTunnel("spark", command="/opt/embedctl", demo=True)
        tunnel.open()
        tunnel.close()
    assert ssh.calls[0] == ["spark", "--", "/opt/embedctl", "--demo", "service", "socket"]


def test_an_option_is_no_host() -> None:
    with pytest.raises(ServiceError, match="is no host"):
        SshTunnel("-oProxyCommand=evil")


def test_without_ssh_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServiceError, match="ssh was not found"):
        SshTunnel("spark").open()


def test_the_console_command_goes_through_it(
    ssh: FakeSsh, spark: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def shown(open_engine: object, *, demo: bool, slow: bool) -> int:
        engine = open_engine()  # type: ignore[operator]
        seen.append(engine.connection.where)
        engine.close()
        return 0

    monkeypatch.setattr("embedctl_console.main", shown)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with served(FakeEngine(), spark):
        assert main(["console", "--host", "spark"]) == 0
    assert seen[0].endswith("on spark")


def test_the_console_command_tells_a_failure_on_stderr(
    ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ssh.answers(1)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["console", "--host", "spark"]) == 2
    assert "No embedctl service runs on spark" in capsys.readouterr().err


# A real server, where one is installed


SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
CONFIG = """Host spark forbidden
  HostName 127.0.0.1
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
  LogLevel ERROR
"""


def start_sshd(folder: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
    """A server of one's own on a free port of loopback; the client's configuration learns the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [f"Port={port}", "ListenAddress=127.0.0.1", f"HostKey={folder}/host", "UsePAM=no", "PidFile=none"]
    words += [f"AuthorizedKeysFile={folder}/user.pub", "StrictModes=no", *options]
    config = folder / "config"
    config.write_text(f"Host {name}\n  Port {port}\n" + (config.read_text() if config.exists() else ""))
    server = subprocess.Popen(
        [str(SSHD), "-D", "-e", "-f", "/dev/null", *(part for word in words for part in ("-o", word))],
        stderr=subprocess.PIPE,
    )
    assert server.stderr is not None
    if b"listening" not in (said := server.stderr.readline()):
        server.kill()
        pytest.skip(f"sshd does not start here: {said.decode(errors='replace').strip()}")
    return server


@pytest.mark.skipif(SSHD is None or shutil.which("ssh-keygen") is None, reason="no sshd is installed")
def test_through_a_real_server(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spark, client = tmp_path / "spark", shutil.which("ssh")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "bin").mkdir()
    for name, does in (
        ("ssh", f'exec {client} -F {tmp_path}/config "$@"'),
        ("there", f"echo {Paths.in_folder(spark).socket}"),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr("embedctl.control.connection._PAUSES", (0.01,))
    (tmp_path / "config").write_text(CONFIG.format(folder=tmp_path))
    servers = [
        start_sshd(tmp_path, "spark"),
        start_sshd(tmp_path, "forbidden", "AllowStreamLocalForwarding=no"),
    ]
    fake, heard = FakeEngine(), Heard()
    tunnel, refused = (
        SshTunnel(host, command=str(tmp_path / "bin/there")) for host in ("spark", "forbidden")
    )
    try:
        with served(fake, spark):
            tunnel.open()
            remote = RemoteEngine(tunnel.dial, Paths.in_folder(home), place="spark")
            remote.subscribe(heard)
            assert remote.embed(["a"] * 500).vectors.shape == fake.embed(["a"] * 500).vectors.shape
            assert tunnel._process is not None
            tunnel._process.kill()
            heard.wait_for(
                lambda found: (
                    [m.connected for m in found if isinstance(m, ConnectionChanged)] == [True, False, True]
                ),
                timeout=30.0,
            )
            assert remote.runs()
            remote.close()
            refused.open()
            with pytest.raises(ServiceError, match="could not be forwarded") as caught:
                _engine_through(refused, demo=False)
            assert "open failed" in caught.value.why
            assert "AllowStreamLocalForwarding" in caught.value.remedy
    finally:
        tunnel.close()
        refused.close()
        for server in servers:
            server.kill()
            server.wait()
