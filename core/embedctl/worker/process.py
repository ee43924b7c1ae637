"""Starting the worker's process, reading its log, and saying how it ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import cache_from_source, find_spec
from pathlib import Path
from typing import IO, Final

from embedctl.environment import without_secrets

_TAIL_BYTES: Final = 8192
_TAIL_LINES: Final = 8
_FATAL: Final = "Fatal Python error"
"""How faulthandler begins its report."""


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker's process ended."""

    code: int | None
    """Exit code, negative for a signal; None if it could not be had."""
    log_tail: tuple[str, ...]
    """The last lines that it wrote."""

    @property
    def cause(self) -> str:
        """In a few words, such as `killed by SIGKILL (…)`."""
        if self.code is None:
            return "ended for an unknown reason"
        if self.code == -signal.SIGKILL:
            return "killed by SIGKILL (the kernel's out-of-memory killer does this when memory runs out)"
        if self.code < 0:
            try:
                return f"killed by {signal.Signals(-self.code).name}"
            except ValueError:
                return f"killed by signal {-self.code}"
        return f"exited with code {self.code}"

    def __str__(self) -> str:
        return f"{self.cause}; its last words: {' | '.join(self.log_tail)}" if self.log_tail else self.cause


def worker_environment(
    inherited: Mapping[str, str], threads: int | None, bytecode: Path | None = None
) -> dict[str, str]:
    """The environment of a worker: it needs no network and no token, and gets neither.

    Args:
        inherited: This process's environment.
        threads: For OpenMP; None leaves it the choice.
        bytecode: Where compiled modules go (see `bytecode_folder`).
    """
    environment = without_secrets(inherited)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling torch and transformers anew takes seconds
    if bytecode is not None:
        environment.setdefault("PYTHONPYCACHEPREFIX", str(bytecode))
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "TQDM_DISABLE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    # The worker never forks after tokenizing, so the fast tokenizers may use all cores.
    environment.setdefault("TOKENIZERS_PARALLELISM", "true")
    # OpenMP's threads spin while they wait for one another. On cores that are busy anyway that halves the
    # speed on the CPU, or worse: 16 passages took 2.3 s spinning and 1.2 s asleep.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
        environment["RAYON_NUM_THREADS"] = str(threads)  # the tokenizer's
    return environment


def bytecode_folder(own: Path) -> Path | None:
    """`own` where torch lies uncompiled and nobody may write; else None: Python does well by itself."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    compiled = Path(cache_from_source(spec.origin))
    return None if compiled.exists() or os.access(Path(spec.origin).parent, os.W_OK) else own


def spawn(
    connection: socket.socket, log_file: IO[bytes], threads: int | None, bytecode: Path | None
) -> subprocess.Popen[bytes]:
    """Start a worker that serves `connection`; stdout and stderr go to `log_file`.

    Raises:
        OSError: The process cannot be started.
    """
    descriptor = connection.fileno()
    # -P keeps a stray torch.py in the current folder out of the worker's imports.
    command = [sys.executable, "-P", "-m", "embedctl.worker", str(descriptor), str(os.getpid())]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log_file,
        stderr=subprocess.STDOUT,
        pass_fds=(descriptor,),
        env=worker_environment(os.environ, threads, bytecode),
        start_new_session=True,  # Ctrl-C in the console's terminal is for the console
    )


def open_log(path: Path) -> IO[bytes]:
    """A fresh log for one worker; the one before is kept as `….1`.

    The caller reads its tail from this very file, also when another program has put a newer one in its place.

    Raises:
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_name(path.name + ".1"))
    return path.open("w+b", buffering=0)


def log_tail(log_file: IO[bytes]) -> tuple[str, ...]:
    """The last lines of a worker's log that are not blank; of a fatal fault the first ones, which name it.

    None of a log that cannot be read: how a worker ended is told without its words too.
    """
    try:
        size = os.fstat(log_file.fileno()).st_size
        # pread leaves the offset alone, which the worker's own writes share.
        data = os.pread(log_file.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    except OSError:
        return ()
    lines = [line.strip() for line in data.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    fatal = next((number for number, line in enumerate(lines) if line.startswith(_FATAL)), None)
    return tuple(lines[-_TAIL_LINES:] if fatal is None else lines[fatal : fatal + _TAIL_LINES])
