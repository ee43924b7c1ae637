"""The head of an answer leaves together with its body, and never gets lost or overtaken."""

from __future__ import annotations

import asyncio

from embedctl.gateway.transport import OneSend

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what was sent, in pieces; like asyncio's own, it drops what comes after its close."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def wire() -> tuple[OneSend, Wire]:
    kept = Wire()
    return OneSend(kept, asyncio.get_running_loop()), kept


async def test_head_and_body_are_one_send() -> None:
    transport, kept = await wire()
    for body in (b"one", b"two"):
        transport.write(HEAD)
        transport.write(body)
    await asyncio.sleep(0)
    assert kept.sent == [HEAD + b"one", HEAD + b"two"]


async def test_a_head_alone_waits_for_one_round_of_the_loop() -> None:
    transport, kept = await wire()
    transport.write(HEAD)
    assert kept.sent == []
    await asyncio.sleep(0)
    assert kept.sent == [HEAD]
    transport.write(b"late")
    assert kept.sent == [HEAD, b"late"]


async def test_a_large_body_is_not_copied() -> None:
    transport, kept = await wire()
    body = bytes(65 * 1024)
    transport.write(HEAD)
    transport.write(body)
    assert kept.sent == [HEAD, body]


async def test_a_close_sends_the_head_first() -> None:
    transport, kept = await wire()
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert (kept.sent, transport.is_closing()) == ([HEAD], True)


async def test_two_heads_without_a_body_keep_their_order() -> None:
    transport, kept = await wire()
    transport.write(HEAD)
    transport.write(HEAD)
    assert b"".join(kept.sent) == HEAD + HEAD
