"""`embedctl serve --demo` as a process of its own: applications, a second shell, and a graceful end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedctl.records import BackendState, JobState
from tests.support.control import client

pytestmark = [pytest.mark.torch, pytest.mark.timeout(200)]


@dataclass
class Daemon:
    process: subprocess.Popen[str]
    home: Path
    url: str
    said: list[str]
    reader: threading.Thread


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-m", "embedctl", "serve", "--demo", "--port", "0", "--no-load"],
        env={**os.environ, "EMBEDCTL_HOME": str(home), "HF_HOME": str(tmp_path / "hf")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        url = next(word for word in first.split() if word.startswith("http://")).rstrip(";")
        said = [first]
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
        reader.start()
        yield Daemon(process, home / "demo", url, said, reader)
    finally:
        process.kill()
        process.wait()


def embed(daemon: Daemon, text: str) -> Any:
    body = json.dumps({"model": "embedctl", "input": [text]}).encode()
    request = urllib.request.Request(
        f"{daemon.url}/v1/embeddings", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"][0]["embedding"]


def test_applications_are_served_switched_and_left_in_good_order(daemon: Daemon) -> None:
    with client(daemon.home) as remote:
        ended = remote.switch("ollama").wait(120.0)
        assert ended.state is JobState.DONE, ended
        status = remote.status()
        assert (status.active, status.demo, status.recording) == ("ollama", True, True)
        vector = embed(daemon, "one text")
        assert remote.embed(["one text"]).vectors[0].tolist() == pytest.approx(vector, abs=1e-6)
        children = psutil.Process(daemon.process.pid).children(recursive=True)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(60.0) == 0
    assert psutil.wait_procs(children, timeout=10.0)[1] == []
    assert not (daemon.home / "run" / "control.sock").exists()
    daemon.reader.join(10.0)
    assert daemon.said[-1] == "stopped\n"


def test_a_worker_that_is_killed_costs_no_application_its_answer(daemon: Daemon) -> None:
    with client(daemon.home) as remote:
        for start in (remote.download, lambda: remote.load("native")):
            ended = start().wait(120.0)
            assert ended.state is JobState.DONE, ended
        before = embed(daemon, "one text")
        killed = remote.status().backend("native").pids
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        assert embed(daemon, "one text") == pytest.approx(before, abs=1e-6)
        now = remote.status().backend("native")
        assert now.state is BackendState.READY
        assert now.pids and not now.pids & killed
        titles = [event.title for event in remote.events(kinds=["error"])]
        assert any(title.startswith("native worker killed by SIGKILL") for title in titles)
