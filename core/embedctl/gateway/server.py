"""The gateway as a running server: a socket, a thread with an event loop of its own, and a graceful end."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
from typing import Final

import uvicorn

from embedctl.engine.facade import EngineFacade
from embedctl.errors import UsageError
from embedctl.gateway.app import GatewayApp
from embedctl.gateway.connection import limited
from embedctl.gateway.keys import Keys, load_keys
from embedctl.gateway.open_files import room_for
from embedctl.settings import GatewaySettings

log = logging.getLogger(__name__)

_KEEP_ALIVE_S: Final = 75
"""Longer than clients keep idle connections: a client must not send into one that is just being closed."""
_START_S: Final = 30.0
_BACKLOG: Final = 2048
_LAST_WORDS_S: Final = 2
"""After the time for a graceful end: calls that were ended then still have to be told so."""


class Gateway:
    """Serves one engine to applications. All methods may be called from any thread.

    Args:
        engine: Answers the requests; stays open when the gateway ends.
        settings: Where to listen, and the limits.
        keys: The API keys; None: those of the environment and the key file.
    """

    def __init__(self, engine: EngineFacade, settings: GatewaySettings, *, keys: Keys | None = None) -> None:
        self._engine = engine
        self._settings = settings
        self._keys = keys
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._app: GatewayApp | None = None
        self._server: uvicorn.Server | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self.url = ""
        """Where it listens, once `start` has returned."""
        self.listener: socket.socket | None = None
        """What it listens with, from `start` to its end."""

    def start(self, listener: socket.socket | None = None) -> str:
        """Listen; returns the URL that applications use, with the real port where port 0 was asked.

        Args:
            listener: A listening socket of an earlier process; it is closed where the settings name another
                address than its own.

        Raises:
            SettingsError: A key is missing or unsafe.
            UsageError: The address cannot be listened on, or the gateway was started before.
        """
        keys = load_keys(self._settings) if self._keys is None else self._keys
        with self._lock:
            if self._thread is not None:
                raise UsageError("The gateway was started before", remedy="make a new one")
            if listener is not None and not _listens_on(listener, self._settings.host, self._settings.port):
                listener.close()
                listener = None
            if listener is None:
                listener = _listen(self._settings.host, self._settings.port)
            listener.setblocking(False)
            self.listener = listener
            port = listener.getsockname()[1]
            host = self._settings.host
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            self._thread = threading.Thread(
                target=self._run, args=(listener, keys), name="gateway", daemon=True
            )
            self._thread.start()
        self._started.wait(_START_S)
        if self._failure is not None or not self._started.is_set():
            raise UsageError(
                "The gateway was not started", why=str(self._failure or "its event loop does not begin")
            ) from self._failure
        return self.url

    def drain(self, timeout: float | None = None) -> bool:
        """Take no new connections, wait for the requests in flight, and end.

        Args:
            timeout: Seconds for the requests in flight, which then get 503; None: the settings' own.

        Returns:
            Whether every request got its own answer in that time.
        """
        seconds = self._settings.drain_timeout_s if timeout is None else timeout
        server, loop, app, thread = self._server, self._loop, self._app, self._thread
        if server is None or loop is None or app is None or thread is None:
            return True
        cut_off = threading.Event()

        def give_up() -> None:
            if app.calls.busy:
                cut_off.set()
            app.calls.stop()

        def begin() -> None:
            server.config.timeout_graceful_shutdown = math.ceil(seconds) + _LAST_WORDS_S
            server.should_exit = True
            loop.call_later(seconds, give_up)

        try:
            loop.call_soon_threadsafe(begin)
        except RuntimeError:  # it has ended already
            return True
        thread.join(seconds + 2 * _LAST_WORDS_S)
        if thread.is_alive():
            log.warning("the gateway's thread does not end")
        return not cut_off.is_set() and not thread.is_alive()

    def stop(self) -> None:
        """End at once; requests in flight get 503. Safe to call twice."""
        self.drain(0.0)

    def _run(self, listener: socket.socket, keys: Keys) -> None:
        try:
            asyncio.run(self._serve(listener, keys))
        except BaseException as error:
            self._failure = error
            if self._started.is_set():
                log.exception("the gateway ended")
        finally:
            listener.close()
            self._started.set()

    async def _serve(self, listener: socket.socket, keys: Keys) -> None:
        app = GatewayApp(self._engine, self._settings, keys)
        config = uvicorn.Config(
            app.asgi,
            http=limited(room_for(self._settings.max_connections), app.full),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        server = uvicorn.Server(config)
        self._app, self._server, self._loop = app, server, asyncio.get_running_loop()
        # The socket listens already: whoever connects from now on is answered as soon as the loop runs.
        asyncio.get_running_loop().call_soon(self._started.set)
        try:
            await server.serve(sockets=[listener])
        finally:
            app.close()


def _listens_on(listener: socket.socket, host: str, port: int) -> bool:
    """Whether it is the one that `_listen` would make; port 0 asks for any."""
    try:
        own_host, own_port = listener.getsockname()[:2]
        wanted = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)[0][4]
        listening = bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
    return listening and own_host == wanted[0] and port in (0, own_port)


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        family, kind, protocol, _, address = found[0]
        # With the protocol named, asyncio sends small packets at once (TCP_NODELAY); without it, an answer's
        # body waits 40 ms for its head to be acknowledged.
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(
            f"The gateway cannot listen on {host}:{port}",
            why=error.strerror or str(error),
            remedy="end what listens there, or choose another gateway.host or gateway.port",
        ) from error
    return listener
