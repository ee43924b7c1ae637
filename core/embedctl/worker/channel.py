"""One end of the socket: frames out from any thread, frames in on one."""

from __future__ import annotations

import contextlib
import math
import select
import socket
import struct
import threading
from collections import deque
from itertools import islice

from embedctl.worker.frames import Frame, FrameReader, encode_frame

_MOST_BUFFERS = 512
"""Buffers of one `sendmsg`; POSIX systems take at least 16, Linux and macOS 1,024."""


class Channel:
    """Sends and receives frames over a connected stream socket, and owns it.

    Args:
        connection: The socket.
        send_timeout: Seconds that the other side may leave a send unread; None: for ever.
        receive_timeout: Seconds that the other side may say nothing; None: for ever.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        send_timeout: float | None = None,
        receive_timeout: float | None = None,
    ) -> None:
        self._socket = connection
        # Not settimeout, which holds for both.
        for option, timeout in ((socket.SO_SNDTIMEO, send_timeout), (socket.SO_RCVTIMEO, receive_timeout)):
            if timeout is not None:
                fraction, seconds = math.modf(timeout)
                value = struct.pack("ll", int(seconds), int(fraction * 1_000_000))
                connection.setsockopt(socket.SOL_SOCKET, option, value)
        self._arrived = select.poll()
        self._arrived.register(connection, select.POLLIN)
        self._sending = threading.Lock()
        self._reader = FrameReader(connection.recv_into)

    def send(self, *frames: Frame) -> None:
        """Send whole frames, one after the other; those of several threads do not mix.

        Raises:
            FrameError: A frame is beyond the limits; nothing was sent.
            BlockingIOError: The other side did not read in time; the stream is of no more use.
            OSError: The other side is gone.
        """
        buffers = deque(memoryview(buffer).cast("B") for frame in frames for buffer in encode_frame(frame))
        with self._sending:
            while buffers:
                sent = self._socket.sendmsg(islice(buffers, _MOST_BUFFERS))
                while buffers and sent >= len(buffers[0]):
                    sent -= len(buffers.popleft())
                if sent:
                    buffers[0] = buffers[0][sent:]

    def send_if_free(self, frame: Frame) -> bool:
        """Send a small frame unless that would have to wait; says whether it was sent.

        Raises:
            OSError: The other side is gone.
        """
        if not self._sending.acquire(blocking=False):
            return False
        try:
            # So small a message goes into the socket's buffer whole or not at all.
            self._socket.sendmsg(encode_frame(frame), [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        finally:
            self._sending.release()
        return True

    def has_some(self) -> bool:
        """Whether a frame, or the end, has begun to arrive. For the thread that receives."""
        return self._reader.buffered or bool(self._arrived.poll(0))

    def receive(self) -> Frame | None:
        """The next frame; None when the other side has closed. For one thread only.

        Raises:
            FrameError: What came is no frame.
            BlockingIOError: The other side said nothing in time; the stream is of no more use.
            OSError: The connection broke.
        """
        return self._reader.read()

    def end(self) -> None:
        """Send no more: the other side reads the end. A `send` that waits in another thread fails."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end; a `receive` that waits in another thread returns or raises."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
