"""`web`: the console in a browser."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from embedctl.cli.app import app, globals_, is_demo
from embedctl.cli.entry import open_or_attach
from embedctl.cli.output import say
from embedctl.cli.service import stop_on_signals
from embedctl.web import DEFAULT_PORT


@app.command()
def web(
    host: Annotated[str, typer.Option(help="A loopback address; others are refused.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = DEFAULT_PORT,
    demo: Annotated[bool, typer.Option("--demo", help="As before the command.")] = False,
) -> None:
    """Show the console in this machine's browser until SIGTERM or Ctrl-C; every page is one of its own."""
    from embedctl.web.server import WebServer

    globals_.demo = globals_.demo or demo
    command = [sys.executable, "-P", "-m", "embedctl", "console"]
    if is_demo():
        command.append("--demo")
    if not globals_.attach:
        command.append("--no-attach")
    title = "embedctl · demo" if is_demo() else "embedctl"
    server = WebServer(command, host=host, port=port, title=title)
    with ExitStack() as ends, stop_on_signals() as stop:
        if globals_.attach:
            # Held here for all pages: a page that is closed or loaded again unloads no model.
            engine = open_or_attach(ends, demo=is_demo(), role="web server")
            ends.callback(engine.close)
        server.run(stop, say)
    say("stopped")
