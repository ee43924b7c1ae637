"""Frames survive any slicing of the stream, and what is no frame is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import numpy as np
import pytest

from embedctl.worker import frames
from embedctl.worker.frames import Frame, FrameError, FrameReader, encode_frame, pack_texts, unpack_texts


def stream_of(*sent: Frame) -> bytes:
    return b"".join(bytes(buffer) for frame in sent for buffer in encode_frame(frame))


def source(data: bytes, piece: int) -> Callable[[memoryview], int]:
    """Delivers `data` in pieces of at most `piece` bytes, then the end of the stream."""
    position = 0

    def receive_into(buffer: memoryview) -> int:
        nonlocal position
        chunk = data[position : position + min(piece, len(buffer))]
        buffer[: len(chunk)] = chunk
        position += len(chunk)
        return len(chunk)

    return receive_into


@pytest.mark.parametrize("piece", [1, 7, 4096, 10**9])
def test_frames_come_out_as_they_went_in_whatever_the_pieces(piece: int) -> None:
    vectors = np.arange(50_000, dtype="<f4")
    sent = (
        Frame({"kind": "embed", "id": 1}, pack_texts(["a", "ü", ""])),
        Frame({"kind": "ping", "id": 2}),
        Frame({"kind": "vectors", "id": 3}, vectors.view(np.uint8).data),
        Frame({"kind": "end"}),
    )
    reader = FrameReader(source(stream_of(*sent), piece))
    received = [reader.read() for _ in sent]
    assert reader.read() is None
    assert [frame.header for frame in received if frame] == [frame.header for frame in sent]
    assert [bytes(frame.payload) for frame in received if frame] == [bytes(frame.payload) for frame in sent]


def test_an_end_inside_a_frame_is_an_error_not_a_silent_end() -> None:
    data = stream_of(Frame({"kind": "ping", "id": 1}, b"payload"))
    for length in range(1, len(data)):
        with pytest.raises(FrameError, match="inside a frame"):
            FrameReader(source(data[:length], 5)).read()


@pytest.mark.parametrize(
    "header", [b"not json", b"[1]", b'{"id": 1}'], ids=["not JSON", "not an object", "without a kind"]
)
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    data = struct.pack("<IQ", len(header), 0) + header
    with pytest.raises(FrameError):
        FrameReader(source(data, 100)).read()


def test_lengths_beyond_the_limits_are_refused_before_memory_is_taken() -> None:
    for lengths in ((frames.MAX_HEADER + 1, 0), (10, frames.MAX_PAYLOAD + 1)):
        with pytest.raises(FrameError, match="beyond the limit"):
            FrameReader(source(struct.pack("<IQ", *lengths), 100)).read()


def test_a_frame_beyond_the_limits_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_PAYLOAD", 10)
    with pytest.raises(FrameError, match="beyond the limit of 10"):
        encode_frame(Frame({"kind": "embed"}, b"01234567890"))


def test_a_header_never_carries_numbers_that_are_not_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_frame(Frame({"kind": "x", "value": float("nan")}))
    assert json.loads(bytes(encode_frame(Frame({"kind": "x"}))[0])[12:]) == {"kind": "x"}


def test_texts_survive_packing_also_those_that_are_not_valid_unicode() -> None:
    texts = ["", "a\x00b", "Grüße", "向量", "\ud800 lone", "😀" * 1000]
    assert unpack_texts(pack_texts(texts), len(texts)) == texts
    assert unpack_texts(pack_texts([]), 0) == []


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_count_of_texts_is_noticed(count: int) -> None:
    with pytest.raises(FrameError):
        unpack_texts(pack_texts(["one", "two"]), count)
