"""What crosses the socket between the engine and its worker: frames of a JSON header and raw bytes.

    4 bytes   length of the header, little-endian
    8 bytes   length of the payload, little-endian
    header    a JSON object in UTF-8; always with "kind", and with "id" where it belongs to a request
    payload   texts (see `pack_texts`) or vectors (float32, little-endian, row by row)

Nothing here knows what the frames mean, and nothing touches a socket: `FrameReader` is given a function that
receives bytes.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_PREFIX: Final = struct.Struct("<IQ")
MAX_HEADER: Final = 16 * 2**20
MAX_PAYLOAD: Final = 2**32
"""4 GiB: a million vectors of 1,024 dimensions."""
_BUFFER = 64 * 2**10
_TO_JSON: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
"""`json.dumps` with these options would make an encoder for every header."""


class FrameError(Exception):
    """Bytes that are no frame, or a frame beyond the limits: the two sides no longer agree."""


@dataclass(frozen=True, slots=True)
class Frame:
    header: Mapping[str, Any]
    payload: bytes | bytearray | memoryview = field(default=b"")

    @property
    def kind(self) -> str:
        return str(self.header["kind"])

    @property
    def id(self) -> int:
        """The request that the frame belongs to; 0 for none."""
        return int(self.header.get("id", 0))


def encode_frame(frame: Frame) -> list[bytes | bytearray | memoryview]:
    """The frame as buffers for one `sendmsg`; the payload is not copied.

    Raises:
        FrameError: Header or payload is beyond the limits.
    """
    header = _TO_JSON(frame.header).encode("utf-8")
    size = memoryview(frame.payload).nbytes
    _check_lengths(len(header), size)
    head = _PREFIX.pack(len(header), size) + header
    return [head, frame.payload] if size else [head]


class FrameReader:
    """Takes frames off a stream that delivers bytes in pieces of any size.

    Args:
        receive_into: Fills a buffer with what is there, returns the number of bytes, 0 at the end of the
            stream; such as `socket.recv_into`.
    """

    def __init__(self, receive_into: Callable[[memoryview], int]) -> None:
        self._receive_into = receive_into
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = 0
        self._end = 0

    @property
    def buffered(self) -> bool:
        """Whether bytes of the next frame are here already."""
        return self._start < self._end

    def read(self) -> Frame | None:
        """The next frame; None when the stream ended between two frames.

        Raises:
            FrameError: The stream ended inside a frame, or what came is no frame.
        """
        prefix = self._take(_PREFIX.size, may_end=True)
        if prefix is None:
            return None
        header_size, payload_size = _PREFIX.unpack(prefix)
        _check_lengths(header_size, payload_size)
        try:
            header = json.loads(bytes(self._take(header_size) or b""))
        except ValueError as error:
            raise FrameError(f"the header is not JSON: {error}") from error
        if not isinstance(header, dict) or "kind" not in header:
            raise FrameError("the header is not an object with a kind")
        return Frame(header, self._take(payload_size) or bytearray())

    def _take(self, size: int, *, may_end: bool = False) -> bytearray | None:
        """Exactly `size` bytes: first what is buffered, and the rest of a large piece past the buffer."""
        taken = bytearray(size)
        view = memoryview(taken)
        filled = 0
        while filled < size:
            if self._start == self._end:
                direct = size - filled >= _BUFFER
                count = self._receive_into(view[filled:] if direct else self._buffer)
                if count == 0:
                    if may_end and filled == 0:
                        return None
                    raise FrameError("the stream ended inside a frame")
                if direct:
                    filled += count
                    continue
                self._start, self._end = 0, count
            piece = min(size - filled, self._end - self._start)
            view[filled : filled + piece] = self._buffer[self._start : self._start + piece]
            self._start += piece
            filled += piece
        return taken


def pack_texts(texts: Sequence[str]) -> bytes:
    """Texts as one payload: their byte lengths as uint32, then their UTF-8.

    Lone surrogates pass through, so that the worker can say which text is not valid Unicode.
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    lengths = array("I", [len(text) for text in encoded])
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths.tobytes() + b"".join(encoded)


def unpack_texts(payload: bytes | bytearray | memoryview, count: int) -> list[str]:
    """The inverse of `pack_texts`.

    Raises:
        FrameError: The payload does not hold `count` texts.
    """
    view = memoryview(payload)
    lengths = array("I")
    head = count * lengths.itemsize
    if len(view) < head:
        raise FrameError(f"the payload is too short for {count} texts")
    lengths.frombytes(view[:head])
    if sys.byteorder == "big":
        lengths.byteswap()
    if head + sum(lengths) != len(view):
        raise FrameError("the payload's length differs from the sum of its texts")
    texts = []
    position = head
    for length in lengths:
        texts.append(str(view[position : position + length], "utf-8", "surrogatepass"))
        position += length
    return texts


def _check_lengths(header: int, payload: int) -> None:
    if header > MAX_HEADER:
        raise FrameError(f"a header of {header} bytes is beyond the limit of {MAX_HEADER}")
    if payload > MAX_PAYLOAD:
        raise FrameError(f"a payload of {payload} bytes is beyond the limit of {MAX_PAYLOAD}")
