"""The server: each page has a console of its own, a process that textual-serve runs and shows there."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import psutil

from embedctl.errors import UsageError
from embedctl.gateway.keys import is_loopback
from embedctl.web import DEFAULT_PORT

_LEAVE_S: Final = 5.0
"""How long the consoles have for leaving by themselves when the server ends."""


class WebServer:
    """Serves consoles to this machine's browsers.

    Args:
        command: Runs one console; it inherits this process's environment.
        host: A loopback address.
        port: 0: any free port.
        title: Of the page.

    Raises:
        UsageError: `host` is no loopback address, or the extra is not installed.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        title: str = "embedctl",
    ) -> None:
        if not is_loopback(host):
            raise UsageError(
                f"The console is not served on {host}",
                why="other machines could reach it, and nothing encrypts key and screen on the way",
                remedy="leave --host out, and on the other machine run "
                f"`ssh -L {port or DEFAULT_PORT}:127.0.0.1:{port or DEFAULT_PORT} USER@THIS-MACHINE`",
            )
        try:
            import aiohttp  # noqa: F401
            import textual_serve  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "The console cannot be shown in a browser",
                why=f"the package {error.name} is missing; it comes with an extra",
                remedy="pip install 'embedctl[web]'",
            ) from error
        self._command = list(command)
        self._host = host
        self._port = port
        self._title = title

    def run(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        """Serve until `stop` is set; then the consoles are ended.

        Args:
            stop: Set by whoever wants the end.
            say: Told the address to open, which has the key in it.

        Raises:
            UsageError: The address cannot be listened on.
        """
        asyncio.run(self._serve(stop, say))

    async def _serve(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        from aiohttp import web
        from textual_serve.server import Server

        from embedctl.web.door import KEY, PARAMETER, door, seal
        from embedctl.web.page import KEYS_SCRIPT, page

        # `exec`, so that no shell stands between: the console is this process's own child.
        server = Server(f"exec {shlex.join(self._command)}")

        async def index(request: web.Request) -> web.Response:
            return web.Response(text=page(self._title, request.host), content_type="text/html")

        async def keys_script(_: web.Request) -> web.Response:
            return web.Response(text=KEYS_SCRIPT, content_type="text/javascript")

        # Routes of our own: textual-serve's page fetches a font from another host, and names the address that
        # this server listens on, which through a tunnel is not the browser's.
        app = web.Application(middlewares=[door])
        app[KEY] = secrets.token_urlsafe(24)
        app.on_response_prepare.append(seal)
        app.add_routes(
            [
                web.get("/", index),
                web.get("/keys.js", keys_script),
                web.get("/ws", server.handle_websocket),
                web.get("/download/{key}", server.handle_download),
                web.static("/static", server.statics_path),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, self._host, self._port).start()
            except OSError as error:
                raise UsageError(
                    f"The console cannot be served on {self._host}:{self._port}",
                    why=error.strerror or str(error),
                    remedy="end what listens there, or choose another --port (0: any free one)",
                ) from error
            host = f"[{self._host}]" if ":" in self._host else self._host
            say(f"open http://{host}:{runner.addresses[0][1]}/?{PARAMETER}={app[KEY]}")
            await asyncio.to_thread(stop.wait)
        finally:
            await self._end_consoles()
            await runner.cleanup()

    async def _end_consoles(self) -> None:
        """Have the consoles leave, and kill those that do not in time."""
        consoles = [child for child in psutil.Process().children() if self._is_console(child)]
        for console in consoles:
            console.terminate()
        deadline = time.monotonic() + _LEAVE_S
        while consoles and time.monotonic() < deadline:
            await asyncio.sleep(0.02)  # asyncio itself takes their exit codes; nobody else may
            consoles = [console for console in consoles if console.is_running()]
        for console in consoles:
            console.kill()

    def _is_console(self, process: psutil.Process) -> bool:
        """Whether `process` is a console, or the shell that is about to become one."""
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            return False
        return words == self._command or words[-1:] == [f"exec {shlex.join(self._command)}"]
