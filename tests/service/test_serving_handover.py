"""A restart under systemd: the listening socket is kept, and who connects meanwhile is answered after it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from embedctl.gateway.keys import Keys
from embedctl.gateway.server import Gateway
from embedctl.serving import handover
from embedctl.settings import GatewaySettings
from tests.support.fake_engine import FakeEngine


class Manager:
    """Stands in for systemd: keeps the descriptors that it is sent, and starts the next process with them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._socket.settimeout(10.0)
        self.kept: dict[str, int] = {}
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))

    def hear(self) -> dict[str, str]:
        """Take one message."""
        said, descriptors, *_ = socket.recv_fds(self._socket, 4096, 4)
        fields = dict(line.partition("=")[::2] for line in said.decode().splitlines())
        if "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.kept:
            os.close(self.kept.pop(fields["FDNAME"]))
        if "FDSTORE" in fields:
            (self.kept[fields["FDNAME"]],) = descriptors
        return fields

    def start_next(self) -> None:
        """What the next process finds around it."""
        first = os.dup(self.kept["gateway"])
        self._patch.setattr(handover, "_FIRST", first)
        for part, value in (("PID", os.getpid()), ("FDS", 1), ("FDNAMES", "gateway")):
            self._patch.setenv(f"LISTEN_{part}", str(value))

    def close(self) -> None:
        self._socket.close()
        for descriptor in self.kept.values():
            os.close(descriptor)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    made = Manager(tmp_path, monkeypatch)
    yield made
    made.close()


def gateway(port: int = 0) -> Gateway:
    return Gateway(FakeEngine(), GatewaySettings(port=port), keys=Keys())


def keep(manager: Manager, listener: socket.socket | None) -> None:
    assert listener is not None
    handover.keep(listener)
    assert manager.hear() == {"FDSTOREREMOVE": "1", "FDNAME": "gateway"}
    assert manager.hear() == {"FDSTORE": "1", "FDNAME": "gateway"}


def test_who_connects_during_a_restart_is_answered_after_it(manager: Manager) -> None:
    before, after = gateway(), gateway()
    url = before.start()
    keep(manager, before.listener)
    before.stop()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.get, f"{url}/healthz", timeout=10.0)
        manager.start_next()
        assert after.start(handover.taken_over()) == url
        assert asked.result(10).status_code == 200
    keep(manager, after.listener)
    after.stop()


def test_another_address_is_listened_on_anew(manager: Manager) -> None:
    before = gateway()
    url = before.start()
    keep(manager, before.listener)
    before.stop()
    manager.start_next()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    after = gateway(port)
    taken = handover.taken_over()
    assert after.start(taken) == f"http://127.0.0.1:{port}" != url
    assert taken is not None and taken.fileno() == -1
    keep(manager, after.listener)
    after.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz")


def test_what_was_meant_for_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for part, value in (("PID", "1"), ("FDS", "1"), ("FDNAMES", "gateway")):
        monkeypatch.setenv(f"LISTEN_{part}", value)
    assert handover.taken_over() is None
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_a_descriptor_of_another_name_is_closed(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    one = gateway()
    one.start()
    keep(manager, one.listener)
    one.stop()
    manager.start_next()
    monkeypatch.setenv("LISTEN_FDNAMES", "stored")
    assert handover.taken_over() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handover._FIRST)
