"""The whole job in a real terminal with keys alone: fetch, load, switch, measure, look back, quit."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.terminal import terminal

pytestmark = [
    pytest.mark.torch,
    pytest.mark.timeout(400),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]


def test_the_journey_through_the_demo(tmp_path: Path) -> None:
    env = {
        "EMBEDCTL_HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hf"),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "OMP_NUM_THREADS": "1",
    }
    with terminal(tmp_path) as term:
        term.start([sys.executable, "-m", "embedctl", "--demo"], env, columns=120, rows=40)
        # A fresh machine: the dashboard says what is missing and what to press.
        term.wait_for("SIMULATED GB10", "model missing", "d ")
        term.press("d")
        term.wait_for("model.safetensors", "missing")
        term.press("Enter")
        term.wait_for("of 87.1 MiB", "left")
        term.wait_for("✓ verified", seconds=60)

        term.press("1", "l")
        term.wait_for("importing torch")
        assert "ready" in term.wait_for("ready", "float32", "claimed", seconds=120)

        term.press("s")
        term.wait_for("native", "ollama", "expected")
        term.press("Enter")
        term.wait_for("ollama is active after", "memory is back", seconds=120)
        term.press("Escape")
        term.wait_for("active ollama", without="esc Close")

        # Too small is said and survived.
        term.resize(50, 12)
        term.wait_for("too small")
        term.resize(80, 24)
        term.wait_for("active ollama")

        term.press("b")
        term.wait_for("Benchmark quick")
        term.resize(120, 40)
        term.press("3")
        term.wait_for("one text: native", without="x Cancel", seconds=240)

        term.press("4")
        term.wait_for("15 min", "native → ollama")

        processes = psutil.Process(term.pid()).children(recursive=True)
        assert processes  # the demo's Ollama server at least
        term.press("q")
        assert term.exit_code(seconds=60) == 0
        assert [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []

        # What happened is there at the next start.
    with terminal(tmp_path) as term:
        term.start([sys.executable, "-m", "embedctl", "--demo"], env, columns=120, rows=40)
        term.wait_for("active ollama", "native → ollama")
        term.press("q")
        assert term.exit_code() == 0
