"""`serve`, `service`, `console`: the engine without a screen, as a systemd unit, and the way to it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl.cli.app import EXIT_NO, app, globals_, is_demo
from embedctl.cli.machine import JsonOption
from embedctl.cli.output import emit, emit_json, say
from embedctl.errors import EmbedctlError, ServiceError
from embedctl.paths import Paths

if TYPE_CHECKING:
    from embedctl.engine.facade import EngineFacade
    from embedctl.serving.systemd import UserUnit

service = typer.Typer(
    help="The service as a systemd user unit: install, start, restart, stop, status, logs and so on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(service, name="service")

_AFTER_DRAIN_S = 30.0
"""What the end may take beyond the requests in flight: jobs, workers, the history."""


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; beyond loopback only with an API key.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="0: any free port.")] = None,
    load: Annotated[bool, typer.Option(help="Load the active backend at once.")] = True,
    demo: Annotated[bool, typer.Option("--demo", help="As before the command.")] = False,
) -> None:
    """Serve the active backend to applications until SIGTERM or Ctrl-C; no request is cut off."""
    globals_.demo = globals_.demo or demo

    def open_engine() -> EngineFacade:
        from embedctl.engine.opening import open_engine

        return open_engine(demo=is_demo(), sampling=True, recording=True)

    from embedctl.serving import daemon

    with stop_on_signals() as stop:
        daemon.serve(
            open_engine, Paths.find(demo=is_demo()).socket, stop, say, host=host, port=port, load=load
        )
    say("stopped")


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that a first signal sets; a second one ends without grace, as Ctrl-C does elsewhere."""
    stop = threading.Event()

    def ask(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command()
def console(
    host: Annotated[
        str | None, typer.Option(help="Attach to the service of another machine over ssh, as user@spark.")
    ] = None,
    there: Annotated[str, typer.Option(help="How embedctl is called on that machine.")] = "embedctl",
    slow: Annotated[
        bool, typer.Option("--slow", help="For a slow line: draw news every few seconds.")
    ] = False,
) -> None:
    """Open the console, as no command does; it attaches to a running service."""
    from embedctl.cli.entry import open_console

    code = open_console(demo=is_demo(), attach=globals_.attach, host=host, there=there, slow=slow)
    if code:
        raise typer.Exit(code)


@service.command()
def install() -> None:
    """Write the unit and have it started at every login; `start` starts it now."""
    from embedctl.serving.systemd import kept_environment
    from embedctl.serving.unit import unit_text
    from embedctl.settings import load_settings

    unit = _unit()
    settings = load_settings(Paths.find(demo=is_demo()))
    environment = kept_environment(os.environ)
    unit.install(
        unit_text(
            _command(),
            description="embedctl: the active embedding backend of this machine" + _demo_note(),
            environment=environment,
            stop_timeout_s=settings.gateway.drain_timeout_s + _AFTER_DRAIN_S,
        )
    )
    emit(str(unit.file))
    if environment:
        say(f"taken along from this shell: {', '.join(sorted(environment))}; other variables are not")
    if not unit.lingers():
        say("it runs while you are logged in; `loginctl enable-linger` lets it run from start-up on")
    say("`embedctl service start` starts it now")


@service.command()
def start() -> None:
    """Start the service and wait until it listens."""
    unit = _unit()
    unit.start()
    say(f"{unit.name} is running")


@service.command()
def restart() -> None:
    """Start the service anew, as after an upgrade: requests in flight are answered, new ones wait."""
    unit = _unit()
    unit.restart()
    say(f"{unit.name} is running")


@service.command()
def stop() -> None:
    """Stop the service: requests in flight are answered first."""
    unit = _unit()
    unit.stop()
    say(f"{unit.name} has ended")


@service.command()
def uninstall() -> None:
    """Stop the service and remove its unit. Settings, history and models stay."""
    unit = _unit()
    unit.uninstall()
    say(f"{unit.file} is gone")


@service.command()
def logs(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="So many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """What the service has said."""
    try:
        code = _unit().logs(lines=lines, follow=follow)
    except KeyboardInterrupt:
        return
    if code:
        raise typer.Exit(2)


@service.command()
def status(as_json: JsonOption = False) -> None:
    """The unit's state and what answers on the control socket. Exit code 1 if nothing answers."""
    from embedctl.control.attach import attach

    paths = Paths.find(demo=is_demo())
    unit, unit_note = None, ""
    try:
        unit = _unit().state()
    except ServiceError as error:
        unit_note = error.why or error.what
    where, now, problem = None, None, None
    try:
        if (attached := attach(paths)) is not None:
            where, now = attached.connection.where, attached.status()
            attached.close()
    except EmbedctlError as error:
        problem = str(error)
    if as_json:
        found = {"unit": unit, "socket": paths.socket, "answers": where, "status": now, "problem": problem}
        emit_json("service", found)
    else:
        if unit is None:
            emit(f"unit     unknown ({unit_note})")
        elif not unit.installed:
            emit("unit     not installed")
        else:
            enabled = "starts at login" if unit.enabled else "does not start at login"
            emit(f"unit     {unit.active} ({unit.detail}), {enabled}")
        emit(f"socket   {paths.socket}")
        if now is None:
            emit(f"answers  {problem or 'nobody'}")
        else:
            states = ", ".join(f"{backend.name} {backend.state}" for backend in now.backends)
            emit(f"answers  {where}: active {now.active}; {states}")
            emit(f"records  {'yes' if now.recording else 'no'}")
    if now is None:
        raise typer.Exit(EXIT_NO)


@service.command()
def socket() -> None:
    """The path of the control socket. Exit code 1 if nobody listens there."""
    from embedctl.control.endpoint import connect
    from embedctl.control.protocol import HANDSHAKE_S

    path = Paths.find(demo=is_demo()).socket
    emit(str(path))
    connection = connect(path, timeout=HANDSHAKE_S)
    if connection is None:
        raise typer.Exit(EXIT_NO)
    connection.close()


def _unit() -> UserUnit:
    from embedctl.serving.systemd import UserUnit

    return UserUnit("embedctl-demo.service" if is_demo() else "embedctl.service")


def _demo_note() -> str:
    return " (demo)" if is_demo() else ""


def _command() -> list[str]:
    """How this very embedctl is started: its interpreter, so that no PATH decides, and no current folder."""
    interpreter = sys.executable or shutil.which("python3") or "python3"
    return [interpreter, "-P", "-m", "embedctl", *(["--demo"] if is_demo() else []), "serve"]
