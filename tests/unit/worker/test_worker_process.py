"""What a worker is started with, and how its end is told."""

from __future__ import annotations

import socket
import subprocess
import sys
from concurrent.futures import Future
from importlib.util import cache_from_source
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, cast

import pytest

from embedctl import errors
from embedctl.errors import WorkerCrashedError
from embedctl.worker import process
from embedctl.worker.client import WorkerClient
from embedctl.worker.frames import Frame
from embedctl.worker.process import WorkerExit, log_tail, open_log, worker_environment
from embedctl.worker.protocol import WorkerOptions, error_fields, error_from


def test_a_worker_gets_no_token_and_no_network() -> None:
    inherited = {
        "HF_TOKEN": "secret",
        "EMBEDCTL_API_KEY": "secret",
        "HUGGING_FACE_HUB_TOKEN": "secret",
        "PATH": "/bin",
        "HF_HUB_OFFLINE": "0",
    }
    environment = worker_environment(inherited, threads=None)
    assert "secret" not in environment.values()
    assert environment["PATH"] == "/bin"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "OMP_NUM_THREADS" not in environment


def test_a_worker_keeps_what_its_owner_chose_for_threads() -> None:
    environment = worker_environment({"TOKENIZERS_PARALLELISM": "false"}, threads=3)
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["RAYON_NUM_THREADS"] == "3"


def test_a_worker_may_keep_what_python_compiles_whatever_its_owner_does(tmp_path: Path) -> None:
    inherited = {"PYTHONDONTWRITEBYTECODE": "1"}
    assert "PYTHONDONTWRITEBYTECODE" not in worker_environment(inherited, None)
    assert "PYTHONPYCACHEPREFIX" not in worker_environment(inherited, None)
    assert worker_environment(inherited, None, tmp_path)["PYTHONPYCACHEPREFIX"] == str(tmp_path)
    chosen = {"PYTHONPYCACHEPREFIX": "/chosen"}
    assert worker_environment(chosen, None, tmp_path)["PYTHONPYCACHEPREFIX"] == "/chosen"


@pytest.mark.parametrize(
    ("writable", "compiled", "own"), [(True, False, False), (False, True, False), (False, False, True)]
)
def test_bytecode_goes_to_our_own_folder_only_where_it_could_go_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool, compiled: bool, own: bool
) -> None:
    source = tmp_path / "torch" / "__init__.py"
    source.parent.mkdir()
    source.touch()
    if compiled:
        cached = Path(cache_from_source(str(source)))
        cached.parent.mkdir(parents=True)
        cached.touch()
    monkeypatch.setattr(process, "find_spec", lambda name: SimpleNamespace(origin=str(source)))
    monkeypatch.setattr(process.os, "access", lambda path, mode: writable)
    assert process.bytecode_folder(tmp_path / "own") == (tmp_path / "own" if own else None)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-9, "killed by SIGKILL (the kernel's out-of-memory killer does this when memory runs out)"),
        (-11, "killed by SIGSEGV"),
        (70, "exited with code 70"),
        (None, "ended for an unknown reason"),
    ],
)
def test_the_end_of_a_worker_is_told_by_its_signal_or_code(code: int | None, cause: str) -> None:
    assert WorkerExit(code, ()).cause == cause
    assert "Fatal: x" in str(WorkerExit(code, ("Fatal: x",)))


def test_the_tail_of_a_log_is_its_last_lines_without_blank_ones(tmp_path: Path) -> None:
    with open_log(tmp_path / "log" / "worker.log") as log:
        assert log_tail(log) == ()
        log.write(b"x" * 100_000 + b"\n" + b"".join(b"line %d\n\n" % n for n in range(20)))
        assert log_tail(log) == tuple(f"line {n}" for n in range(12, 20))


def test_a_log_that_cannot_be_read_has_no_last_words(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:  # for writing alone
        assert log_tail(log) == ()


_OF_ANOTHER_RELEASE = """
import json, socket, struct, sys
engine = socket.socket(fileno=int(sys.argv[1]))
header = json.dumps({"kind": "ready", "another": "form"}).encode()
engine.sendall(struct.pack("<IQ", len(header), 0) + header)
while engine.recv(4096):
    pass
"""


def test_a_worker_that_is_not_understood_is_one_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spawn(connection: socket.socket, log_file: IO[bytes], *_: object) -> subprocess.Popen[bytes]:
        descriptor = connection.fileno()
        command = [sys.executable, "-S", "-c", _OF_ANOTHER_RELEASE, str(descriptor)]
        return subprocess.Popen(command, stdout=log_file, stderr=log_file, pass_fds=(descriptor,))

    monkeypatch.setattr("embedctl.worker.client.spawn", spawn)
    client = WorkerClient(WorkerOptions(str(tmp_path)), log_file=tmp_path / "log")
    with pytest.raises(errors.WorkerCrashedError, match="while it loaded the model"):
        client.start(timeout=60)
    assert not client.alive


def test_the_log_of_the_worker_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    with open_log(path) as first:
        first.write(b"first\n")
        with open_log(path) as second:
            second.write(b"second\n")
            assert log_tail(first) == ("first",)
    assert path.read_text() == "second\n"
    assert (tmp_path / "worker.log.1").read_text() == "first\n"


@pytest.mark.parametrize(
    "error",
    [
        errors.BackendOutOfMemoryError("no room", why="w", remedy="r"),
        errors.InvalidTextError("bad", why="w", remedy="r", index=3),
        errors.Cancelled(),
    ],
)
def test_an_error_crosses_the_socket_unchanged(error: errors.EmbedctlError) -> None:
    back = error_from(error_fields(error))
    assert type(back) is type(error)
    assert (back.what, back.why, back.remedy) == (error.what, error.why, error.remedy)
    assert getattr(back, "index", None) == getattr(error, "index", None)


def test_an_error_that_is_not_ours_arrives_as_one_that_names_it() -> None:
    back = error_from(error_fields(ZeroDivisionError("division by zero")))
    assert type(back) is errors.BackendError
    assert back.why == "ZeroDivisionError: division by zero"


def test_a_name_that_is_no_error_of_ours_cannot_be_smuggled_in() -> None:
    back = error_from({"type": "annotations", "what": "x", "why": "", "remedy": ""})
    assert type(back) is errors.BackendError


def test_the_engines_side_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "sentence_transformers", "numpy", "psutil")
    code = f"import embedctl.backends.native, sys; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_callers_are_told_of_the_end_even_if_nobody_can_be_started_in_its_place(tmp_path: Path) -> None:
    def no_thread_left(end: WorkerExit) -> None:
        raise RuntimeError("can't start new thread")

    client = WorkerClient(WorkerOptions("nowhere"), log_file=tmp_path / "log", on_exit=no_thread_left)
    waiting: Future[Frame] = Future()
    client._pending[1] = waiting
    client._ready.set_result(cast(Any, None))
    with open_log(tmp_path / "log") as log_file:
        client._finish(-9, log_file)
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        waiting.result(0)
