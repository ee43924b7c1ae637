"""Starts and ends the demo's Ollama server as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedctl.errors import BackendUnavailableError

START_SECONDS = 30.0
END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DemoOllama:
    """The running server."""

    host: str
    """Its base URL."""
    pid: int

    @staticmethod
    @contextmanager
    def start(
        model_folder: Path, tag: str, log_dir: Path, references: Path | None = None
    ) -> Iterator[DemoOllama]:
        """Run the server for as long as the `with` block runs; its runner ends with it.

        Args:
            references: Where a load leaves what makes the next one quick; None: nowhere.

        Raises:
            BackendUnavailableError: It did not start; names its log.
        """
        log_dir.mkdir(parents=True, exist_ok=True)
        log = log_dir / "demo-ollama.log"
        command = [sys.executable, "-P", "-m", "embedctl.demo.ollama_server"]
        command += ["--model-folder", str(model_folder), "--tag", tag, "--log-dir", str(log_dir)]
        command += ["--references", str(references)] if references is not None else []
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in the console's terminal is the console's to handle
            )
        try:
            yield DemoOllama(f"http://127.0.0.1:{_read_port(process, log)}", process.pid)
        finally:
            _end(process)


def _read_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port from the server's first line, waiting at most `START_SECONDS` for it."""
    assert process.stdout is not None
    guard = threading.Timer(START_SECONDS, process.kill)  # ends the read below
    guard.start()
    try:
        line = process.stdout.readline()
    finally:
        guard.cancel()
    try:
        return int(json.loads(line)["port"])
    except (ValueError, KeyError, TypeError) as error:
        raise BackendUnavailableError(
            "The demo's Ollama server did not start",
            why=f"it ended with code {process.wait()}" if not line else f"it said {line!r}",
            remedy=f"see {log}",
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its stdin, which ends it and its runner; insist if that does not help."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
