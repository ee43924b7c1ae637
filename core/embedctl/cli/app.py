"""The command line's frame: global options, sub-commands, and what becomes of errors."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

import embedctl
from embedctl.cli.output import emit, say, say_error
from embedctl.errors import Cancelled, EmbedctlError, UsageError
from embedctl.events import ConnectionChanged, Message
from embedctl.paths import Paths

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade

EXIT_NO = 1
"""The answer is no: a check failed, a verdict is negative."""

app = typer.Typer(
    name="embedctl",
    help="Fetch, run, compare and switch the embedding backends of this machine. "
    "Without a command: the console.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@dataclass(slots=True)
class Globals:
    """The options before the command."""

    demo: bool = False
    debug: bool = False
    attach: bool = True


globals_ = Globals()


def _version(asked: bool) -> None:
    if asked:
        emit(f"embedctl {embedctl.__version__}")
        raise typer.Exit


@app.callback()
def _frame(
    demo: Annotated[
        bool, typer.Option("--demo", help="A simulated GB10 and local servers in a folder of its own.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log to stderr and show tracebacks.")] = False,
    attach: Annotated[
        bool, typer.Option("--attach/--no-attach", help="Use the engine of a running service or console.")
    ] = True,
    version: Annotated[  # noqa: ARG001  # its callback has acted by now
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit."),
    ] = False,
) -> None:
    globals_.demo = demo
    globals_.debug = debug
    globals_.attach = attach
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR, format="%(levelname)s %(name)s: %(message)s"
    )
    for client in ("httpx", "httpx2"):  # they log whole addresses: a webhook's, signed ones of the Hub's
        logging.getLogger(client).setLevel(logging.WARNING)


@contextmanager
def engine(*, sampling: bool = False, recording: bool = False) -> Iterator[EngineFacade]:
    """The engine for one command: that of a running service or console, else one of its own.

    Args:
        sampling: One of its own reads the figures of the machine.
        recording: It stores them.
    """
    opened = _attached() if globals_.attach else None
    if opened is None:
        from embedctl.engine.opening import open_engine

        opened = open_engine(demo=globals_.demo, sampling=sampling, recording=recording)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def running_engine(needs: str) -> Iterator[EngineFacade]:
    """The engine of a running service or console, for what makes no sense in a process that ends at once.

    Raises:
        UsageError: None runs; `needs` says in its first line why one must.
    """
    opened = _attached()
    if opened is None:
        raise UsageError(
            f"{needs}, and no service runs here",
            why="this command's own process ends at once and serves nobody",
            remedy="start one with `embedctl serve`, and point your application at it",
        )
    try:
        yield opened
    finally:
        opened.close()


def _attached() -> EngineFacade | None:
    from embedctl.control.attach import attach

    found = attach(Paths.find(demo=globals_.demo))
    if found is not None:
        found.subscribe(_tell_connection)
        ignored = [name for name in os.environ if name.startswith("EMBEDCTL_") and "__" in name]
        if ignored:
            say(f"{', '.join(sorted(ignored))}: without effect there; --no-attach heeds them")
    return found


def _tell_connection(message: Message) -> None:
    if isinstance(message, ConnectionChanged):
        if message.connected:
            say(f"attached to {message.where}; --no-attach runs an engine of its own")
        else:
            say(f"the connection to {message.where} is lost: {message.why}; {message.remedy}")


def is_attached(opened: EngineFacade) -> bool:
    """Whether this engine runs in another process and goes on without this one."""
    from embedctl.control.client import RemoteEngine

    return isinstance(opened, RemoteEngine)


def is_demo() -> bool:
    return globals_.demo


@contextmanager
def _ends_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM and a closed terminal end a command as Ctrl-C does: work is cancelled, workers are stopped.

    A SIGHUP that is ignored (nohup) stays so.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        0 (fine), 1 (the answer is no), 2 (not possible, wrong usage) or 130 (ended by Ctrl-C or a signal).
    """
    with _ends_as_by_ctrl_c():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    from embedctl.cli import (  # noqa: F401  # each registers its commands
        backends,
        bench,
        check,
        claims,
        coexist,
        config,
        history,
        inspection,
        machine,
        models,
        quality,
        service,
        trial,
        tune,
        web,
    )

    try:
        app(list(arguments), prog_name="embedctl")
    except SystemExit as end:  # typer ends every command line so, wrong usage with 2
        return end.code if isinstance(end.code, int) else 0
    except Cancelled as error:
        say(error.what)
        return 130
    except EmbedctlError as error:
        if globals_.debug:
            raise
        say_error(error)
        return error.exit_code
    except Exception as error:
        if globals_.debug:
            raise
        say_error(
            EmbedctlError(
                "embedctl failed unexpectedly",
                why=f"{type(error).__name__}: {error}",
                remedy="run it again with --debug before the command and report what it prints",
            )
        )
        return 2
    return 0
