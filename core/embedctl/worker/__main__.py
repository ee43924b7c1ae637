"""`python -m embedctl.worker FD PARENT`: serve the engine at the other end of the inherited socket FD."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys

from embedctl.worker.channel import Channel
from embedctl.worker.server import WorkerServer

_PR_SET_PDEATHSIG = 1


def main() -> int:
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    faulthandler.enable()  # a fault inside a kernel leaves a Python traceback in the log
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _die_with(parent)
    WorkerServer(Channel(socket.socket(fileno=descriptor))).run()
    return 1


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, even while a hanging kernel holds the GIL.

    Linux only, and on top of the socket, whose end says the same. The signal follows the *thread* that
    started this process; the client starts it from the thread that reads its answers, which lives as long.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent had gone before the kernel was asked
        sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
