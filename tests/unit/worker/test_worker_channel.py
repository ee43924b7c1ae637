"""A channel over a real socketpair: what happens when the other side is slow or gone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame

LARGE = bytes(range(256)) * 2**14  # 4 MiB: far beyond a socket's buffer


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    pair = Channel(left, send_timeout=0.05), Channel(right)
    yield pair
    for channel in pair:
        channel.close()


def test_a_frame_larger_than_the_sockets_buffer_arrives_whole(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    received: list[Frame | None] = []
    thread = threading.Thread(target=lambda: received.extend([receiver.receive(), receiver.receive()]))
    thread.start()
    sender.send(Frame({"kind": "embed", "id": 1}, LARGE))
    sender.send(Frame({"kind": "ping", "id": 2}))
    thread.join()
    assert [frame and frame.id for frame in received] == [1, 2]
    assert received[0] is not None
    assert received[0].payload == LARGE


def test_a_side_that_does_not_read_is_noticed(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(BlockingIOError):
        ends[0].send(Frame({"kind": "embed"}, LARGE))


def test_a_small_frame_that_would_have_to_wait_is_left_out(ends: tuple[Channel, Channel]) -> None:
    sender, receiver = ends
    assert sender.send_if_free(Frame({"kind": "cancel", "id": 1}))
    received = receiver.receive()
    assert received is not None
    assert received.id == 1
    with pytest.raises(BlockingIOError):
        sender.send(Frame({"kind": "embed"}, LARGE))
    assert not sender.send_if_free(Frame({"kind": "cancel", "id": 2}))


def test_the_end_is_read_as_the_end_and_answers_still_come_back(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.end()
    assert theirs.receive() is None
    theirs.send(Frame({"kind": "vectors", "id": 1}))
    received = ours.receive()
    assert received is not None
    assert received.kind == "vectors"


def test_sending_to_a_side_that_is_gone_is_an_os_error(ends: tuple[Channel, Channel]) -> None:
    ends[1].close()
    with pytest.raises(OSError):
        ends[0].send(Frame({"kind": "ping"}))
