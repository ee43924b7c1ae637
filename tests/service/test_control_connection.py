"""The connection: who may listen, and who may come."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import embedctl
from embedctl.control.attach import attach
from embedctl.control.endpoint import Endpoint
from embedctl.control.server import _Session
from embedctl.errors import ServiceError
from embedctl.paths import Paths
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame
from tests.support.control import client, served
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def path(home: Path) -> Path:
    return Paths.in_folder(home).socket


# Who listens


def test_nobody_listens(home: Path) -> None:
    assert attach(Paths.in_folder(home)) is None


def test_only_its_user_may_reach_the_socket(home: Path, path: Path) -> None:
    with served(FakeEngine(), home):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()


def test_a_stale_socket_is_recognised_and_replaced(home: Path, path: Path) -> None:
    path.parent.mkdir(parents=True)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert attach(Paths.in_folder(home)) is None
    with served(FakeEngine(), home), client(home) as remote:
        assert remote.status().active == "native"


def test_who_listens_already_is_named(home: Path, path: Path) -> None:
    with served(FakeEngine(), home, role="console"):
        with pytest.raises(ServiceError) as caught:
            Endpoint.claim(path, "service")
        assert f"a console (PID {os.getpid()})" in caught.value.why
    Endpoint.claim(path, "service").release()


def test_a_killed_listener_leaves_the_way_free(home: Path, path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from embedctl.control.endpoint import Endpoint\n"
        "Endpoint.claim(Path(sys.argv[1]), 'service').listen(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.is_socket()
    with served(FakeEngine(), home), client(home) as remote:
        assert remote.connection.connected


def test_the_socket_of_another_user_is_not_trusted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FakeEngine(), home):
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr("embedctl.control.endpoint._ROOT", 54321)
        with pytest.raises(ServiceError, match="another user"):
            attach(Paths.in_folder(home))


def test_a_link_that_another_user_made_to_a_folder_of_ours_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, link = tmp_path / "ours", tmp_path / "run"
    ours.mkdir(mode=0o755)
    link.symlink_to(ours)
    lstat = Path.lstat

    def made_by_another(self: Path) -> os.stat_result:
        found = list(lstat(self))
        found[stat.ST_UID] = 12345 if self == link else found[stat.ST_UID]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", made_by_another)
    with pytest.raises(ServiceError, match="another user"):
        Endpoint.claim(link / "control.sock", "service")
    assert list(ours.iterdir()) == []
    assert stat.S_IMODE(ours.stat().st_mode) == 0o755


def test_a_long_path_is_made_a_short_one(tmp_path: Path) -> None:
    paths = Paths.in_folder(tmp_path / ("x" * 120))
    assert len(os.fsencode(paths.socket)) < 100
    assert paths.socket == Paths.in_folder(tmp_path / ("x" * 120)).socket
    assert paths.socket != Paths.in_folder(tmp_path / ("y" * 120)).socket


# Who comes


def test_other_versions_are_told_so_with_a_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(FakeEngine(), home):
        monkeypatch.setattr(embedctl, "__version__", "9.9.9")
        with pytest.raises(ServiceError, match=r"9\.9\.9.*cannot talk to the service") as caught:
            attach(Paths.in_folder(home))
        assert "--no-attach" in caught.value.remedy


def test_a_listener_that_says_nothing_is_told(
    home: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedctl.control.link.HANDSHAKE_S", 0.05)
    endpoint = Endpoint.claim(path, "service")
    with endpoint.listen(), pytest.raises(ServiceError, match="does not answer"):
        attach(Paths.in_folder(home))
    endpoint.release()


@pytest.mark.parametrize("words", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b""])
def test_a_stranger_does_no_harm(home: Path, path: Path, words: bytes) -> None:
    with served(FakeEngine(), home), socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(words)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) == b""
        with client(home) as remote:
            assert remote.runs()


def test_a_client_that_could_not_be_let_in_is_not_the_last_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class FullOnce:
        """A listener whose process has no file descriptor left, for a moment."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.full = True

        def accept(self) -> tuple[socket.socket, object]:
            if self.full:
                self.full = False
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.listener, name)

    listen = Endpoint.listen
    monkeypatch.setattr(Endpoint, "listen", lambda self: FullOnce(listen(self)))
    with served(FakeEngine(), home), client(home) as remote:
        assert remote.runs()
    assert "Too many open files" in caplog.text


def test_who_is_being_greeted_while_it_stops_is_not_served(
    home: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_in, greet = threading.Event(), _Session.greet
    monkeypatch.setattr(_Session, "greet", lambda self, hello: (let_in.set(), greet(self, hello))[1])
    with served(FakeEngine(), home) as server, socket.socket(socket.AF_UNIX) as late:
        late.connect(str(path))
        late.settimeout(10.0)
        assert let_in.wait(10.0)
        server.stop()
        channel = Channel(late)
        channel.send(Frame({"kind": "hello", "version": embedctl.__version__}))
        heard = channel.receive()
        assert heard is not None
        assert heard.kind == "hello"
        assert channel.receive() is None
