"""The conversion of pickled weights, seen from the process that asked for it and never loads torch."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from embedctl.environment import without_secrets
from embedctl.errors import HubConversionError, HubSpaceError
from embedctl.progress import CancelToken

EXIT_REFUSED = 3
EXIT_NO_SPACE = errno.ENOSPC
"""Exit codes of `embedctl.hub.convert`."""

Told = Callable[[str, float, float], None]
"""Hears a step, how much of it is done, and its total."""


def convert_weights(source: Path, target: Path, told: Told, cancel: CancelToken) -> None:
    """Convert `source` (a pickled checkpoint or its index) to the safetensors file `target`.

    Raises:
        Cancelled: The child process was ended and its partial file deleted.
        HubConversionError: The checkpoint holds more than tensors, or could not be converted.
        HubSpaceError: The disk has no room for the result.
    """
    cancel.raise_if_cancelled()
    target.parent.mkdir(parents=True, exist_ok=True)
    # -P keeps a stray torch.py in the current folder out of the child's imports.
    command = [sys.executable, "-P", "-m", "embedctl.hub.convert", str(source), str(target)]
    # One core suffices (the disk is the limit), and the machine may be serving requests meanwhile.
    environment = without_secrets(os.environ) | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, env=environment, encoding="utf-8"
        ) as child:
            cancel.on_cancel(child.kill)
            assert child.stdout is not None
            for line in child.stdout:
                step = json.loads(line)
                told(step["step"], step["done"], step["total"])
        if child.returncode == 0:
            return
        target.with_name(f"{target.name}.part").unlink(missing_ok=True)
        cancel.raise_if_cancelled()
        complaints.seek(0)
        lines = complaints.read().strip().splitlines()
    raise _error(child.returncode, lines[-1] if lines else "", source)


def _error(code: int, complaint: str, source: Path) -> HubConversionError | HubSpaceError:
    if code == EXIT_NO_SPACE:
        return HubSpaceError(
            "The disk has no room for the converted weights",
            why=complaint,
            remedy="free some space and start the download again: only the conversion is left to do",
        )
    if code == EXIT_REFUSED:
        return HubConversionError(
            f"{source.name} was refused: it holds more than tensors",
            why=complaint,
            remedy="do not load this file; choose a repository or revision with safetensors",
        )
    return HubConversionError(
        f"{source.name} could not be converted to safetensors",
        why=complaint or f"the converting process ended with code {code}",
        remedy="check that torch works (`embedctl doctor`), then start the download again",
    )
