"""One end of the socket: frames out from any thread, frames in on one."""

from __future__ import annotations

import contextlib
import socket
import threading

from embedctl.worker.frames import Frame, FrameReader, encode_frame


class Channel:
    """Sends and receives frames over a connected stream socket, and owns it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        self._reader = FrameReader(connection.recv_into)

    def send(self, frame: Frame) -> None:
        """Send the whole frame; frames of several threads do not mix.

        Raises:
            FrameError: The frame is beyond the limits; nothing was sent.
            OSError: The other side is gone.
        """
        buffers = [memoryview(buffer).cast("B") for buffer in encode_frame(frame)]
        with self._sending:
            while buffers:
                sent = self._socket.sendmsg(buffers)
                while buffers and sent >= len(buffers[0]):
                    sent -= len(buffers.pop(0))
                if buffers:
                    buffers[0] = buffers[0][sent:]

    def receive(self) -> Frame | None:
        """The next frame; None when the other side has closed. For one thread only.

        Raises:
            FrameError: What came is no frame.
            OSError: The connection broke.
        """
        return self._reader.read()

    def close(self) -> None:
        """Close this end; a `receive` that waits in another thread returns or raises."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
