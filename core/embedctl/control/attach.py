"""Attaching to what runs on this machine already."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from embedctl.control.endpoint import connect
from embedctl.control.protocol import HANDSHAKE_S

if TYPE_CHECKING:
    from embedctl.control.client import RemoteEngine
    from embedctl.paths import Paths


def attach(paths: Paths) -> RemoteEngine | None:
    """The engine of the service or console that listens for `paths`; None if none does.

    Raises:
        ServiceError: One does but cannot be used: it hangs, or is of another version.
    """
    first = connect(paths.socket, timeout=HANDSHAKE_S)
    if first is None:
        return None
    from embedctl.control.client import RemoteEngine

    waiting = [first]

    def dial() -> socket.socket | None:
        return waiting.pop() if waiting else connect(paths.socket, timeout=HANDSHAKE_S)

    return RemoteEngine(dial, paths)
