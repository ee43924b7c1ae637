"""A journey in a real terminal with the mouse alone: what a terminal tells of it finds its way."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.terminal import terminal

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


def test_charts_screens_and_keys_with_the_mouse(tmp_path: Path) -> None:
    env = {
        "EMBEDCTL_HOME": str(tmp_path / "home"),
        "HF_HOME": str(tmp_path / "hf"),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
    }
    with terminal(tmp_path) as term:
        term.start([sys.executable, "-m", "embedctl", "--demo"], env, columns=120, rows=40)
        before = term.wait_for("SIMULATED GB10", "● native 0 B", "No requests yet")
        assert "PAUSED" not in before

        # The wheel zooms the chart that it is over, and no other.
        term.turn_wheel("No requests yet")
        assert "● LIVE" in term.wait_for("‖ PAUSED")
        # An entry of a legend hides its series and brings it back; the chart's keys are told from then on.
        term.click("● native 0 B")
        term.wait_for("native 0 B", "= Reset", without="● native 0 B")
        term.click("native 0 B")
        term.wait_for("● native 0 B")

        term.click("4 History")
        term.wait_for("Events in this window", "embedctl started")
        term.click("1h")
        term.wait_for("in 1 h 00 min")
        term.click("? Help")
        term.wait_for("Keys everywhere")
        term.click("q Quit")
        assert term.exit_code() == 0
