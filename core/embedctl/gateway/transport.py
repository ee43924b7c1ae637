"""Sends the head of an answer together with its body."""

from __future__ import annotations

import asyncio
from typing import Any, Final

_HEAD: Final = b"HTTP/1.1 "
_COPIED: Final = 64 * 1024
"""Bodies up to this size are copied behind their head; a larger one's copy would cost more than a send."""


class OneSend:
    """A transport that holds an answer's head back until its body comes, or until the loop goes round.

    uvicorn writes them one after the other: two system calls, two packets, and the client is woken for a
    head that is of no use to it yet.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None and data.startswith(_HEAD) and len(data) <= _COPIED:
            self._head = data
            self._loop.call_soon(self._send_head)
        elif self._head is not None and len(data) <= _COPIED:
            head, self._head = self._head, None
            self._transport.write(head + data)
        else:
            self._send_head()
            self._transport.write(data)

    def close(self) -> None:
        self._send_head()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _send_head(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)
