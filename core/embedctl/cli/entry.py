"""`embedctl`: without a command the console, with one the command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from embedctl.cli.output import say_error
from embedctl.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from embedctl.control.ssh import SshTunnel
    from embedctl.engine.facade import EngineFacade

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run embedctl and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = [word for word in words if word != "console"]
    if len(words) - len(options) <= 1 and set(options) <= {"--demo", "--no-attach", "--slow"}:
        # Neither typer nor the engine's parts are imported before the first paint.
        return open_console(
            demo="--demo" in options, attach="--no-attach" not in options, slow="--slow" in options
        )
    from embedctl.cli.app import run

    return run(words)


def open_console(
    *,
    demo: bool,
    attach: bool = True,
    host: str | None = None,
    there: str = "embedctl",
    slow: bool = False,
) -> int:
    """Run the console and return its exit code.

    Args:
        attach: Use the engine of a running service or console; without one, or if false, one of its own.
        host: Attach to the service of that machine over ssh.
        there: How embedctl is called on that machine.
        slow: The terminal is on a slow line: draw news seldom.

    Raises:
        ServiceError: That machine's service cannot be reached.
    """
    # Keys come from the one, the screen goes to the other, unless Textual has been told another way.
    if not (sys.stdin.isatty() and sys.stderr.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
        say_error(
            UsageError(
                "The console was not opened",
                why="it needs a terminal, and this is a pipe, a file or a job without one",
                remedy="run it in a terminal, or use a command: `embedctl status`, `embedctl --help`",
            )
        )
        return UsageError.exit_code

    import embedctl_console

    with ExitStack() as ends:
        if host is None:
            return embedctl_console.main(
                lambda: open_or_attach(ends, demo=demo, attach=attach), demo=demo, slow=slow
            )
        from embedctl.control.ssh import SshTunnel

        tunnel = SshTunnel(host, command=there, demo=demo)
        ends.callback(tunnel.close)
        tunnel.open()
        return embedctl_console.main(lambda: _engine_through(tunnel, demo=demo), demo=demo, slow=slow)


def open_or_attach(
    ends: ExitStack, *, demo: bool, attach: bool = True, role: str = "console"
) -> EngineFacade:
    """[slow] What runs already, else an engine of this process's own, to which others may attach.

    Args:
        ends: Is to close after the engine.
        role: What this process is to those that attach.
    """
    from embedctl.control import attach as attaching
    from embedctl.paths import Paths

    paths = Paths.find(demo=demo)
    attached = attaching.attach(paths) if attach else None
    if attached is not None:
        return attached
    from embedctl.control.endpoint import Endpoint
    from embedctl.control.server import ControlServer
    from embedctl.engine.opening import open_engine

    engine = open_engine(demo=demo)
    try:
        server = ControlServer(engine, Endpoint.claim(paths.socket, role), role=role)
        ends.callback(server.stop)
        server.start()
    except ServiceError as error:  # it does without
        log.warning("other commands cannot attach to this %s: %s", role, error)
    return engine


def _engine_through(tunnel: SshTunnel, *, demo: bool) -> EngineFacade:
    from embedctl.control.client import RemoteEngine
    from embedctl.paths import Paths
    from embedctl.settings import load_settings

    paths = Paths.find(demo=demo)
    console = load_settings(paths).console
    try:
        return RemoteEngine(tunnel.dial, paths, place=tunnel.host, console=console)
    except ServiceError as error:
        raise tunnel.explain(error) from error


if __name__ == "__main__":
    sys.exit(main())
