"""`embedctl serve`: the engine without a screen, its control socket, and the gateway for applications."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from embedctl.control.endpoint import Endpoint
from embedctl.control.server import ControlServer
from embedctl.engine.facade import EngineFacade, JobHandle
from embedctl.errors import EmbedctlError
from embedctl.gateway.server import Gateway
from embedctl.records import JobState
from embedctl.serving import handover
from embedctl.serving.notify import notify
from embedctl.settings import GatewaySettings


def serve(
    open_engine: Callable[[], EngineFacade],
    socket: Path,
    stop: threading.Event,
    say: Callable[[str], None],
    *,
    host: str | None = None,
    port: int | None = None,
    load: bool = True,
) -> None:
    """Serve until `stop` is set; then requests in flight are answered, jobs cancelled and workers stopped.

    Args:
        open_engine: Called once the right to the control socket is had.
        socket: Where the control socket is to be.
        stop: Set by whoever wants the end.
        say: Told where it listens, and how loading and the end go.
        host: In place of the setting `gateway.host`, as `port`.
        load: Load the active backend at once, while requests are taken already.

    Raises:
        ServiceError: Another process serves already, or the socket cannot be made.
        EmbedctlError: The engine could not be opened, or the address cannot be listened on.
    """
    with ExitStack() as ends:
        endpoint = Endpoint.claim(socket, "service")
        ends.callback(endpoint.release)
        engine = open_engine()
        control = ControlServer(engine, endpoint, role="service")
        # Clients are told how their jobs ended before they lose the connection, hence the engine goes first.
        ends.callback(control.stop)
        ends.callback(engine.close)
        gateway = Gateway(engine, _listening_on(engine.settings.gateway, host, port))
        url = gateway.start(handover.taken_over())
        ends.callback(gateway.stop)
        if gateway.listener is not None:
            handover.keep(gateway.listener)
        control.start()
        _spare_collections()
        say(f"serving {engine.status().active} on {url}; control socket {control.path}")
        notify("READY=1", f"STATUS=listening on {url}")
        if load:
            _load(engine, say)
        stop.wait()
        notify("STOPPING=1", "STATUS=answering the requests in flight")
        say("stopping: the requests in flight are answered first")
        if not gateway.drain():
            say("some requests took too long and were cut off")


def _listening_on(settings: GatewaySettings, host: str | None, port: int | None) -> GatewaySettings:
    wanted = {"host": host, "port": port}
    return settings.model_copy(update={name: value for name, value in wanted.items() if value is not None})


def _spare_collections() -> None:
    """Take what lives as long as the service out of the garbage collector's rounds.

    Each full one would otherwise hold up every request for a tenth of a second.
    """
    gc.collect()
    gc.freeze()


def _load(engine: EngineFacade, say: Callable[[str], None]) -> None:
    """Load the active backend beside everything else; without success the first request tries again."""
    try:
        job = engine.load(engine.status().active)
    except EmbedctlError as error:
        say(str(error))
        return
    threading.Thread(target=_tell_end, args=(job, say), name="serve-load", daemon=True).start()


def _tell_end(job: JobHandle, say: Callable[[str], None]) -> None:
    update = job.wait()
    if update.state is JobState.DONE:
        say(f"{update.title}: done")
    elif update.failure is not None:
        failure = update.failure
        say(" — ".join(part for part in (failure.what, failure.why, failure.remedy) if part))
