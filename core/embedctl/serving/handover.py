"""The listening socket outlives a restart: systemd keeps it, and who connects meanwhile waits in its queue.

A service hands its manager a copy of a descriptor (`FDSTORE=1`, sd_pid_notify_with_fds(3)) and finds it again
after a restart as one of those that it is started with (sd_listen_fds(3)). Elsewhere than under systemd
nothing happens here.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from embedctl.serving.notify import notify

_NAME: Final = "gateway"
_FIRST: Final = 3
"""The first descriptor that systemd gives a process."""


def taken_over() -> socket.socket | None:
    """The listening socket that the process before this one left; None: there was none.

    Like sd_listen_fds(3) it takes the variables that say so out of the environment: no child has them.
    """
    process, count, names = (os.environ.pop(f"LISTEN_{part}", "") for part in ("PID", "FDS", "FDNAMES"))
    if process != str(os.getpid()) or not count.isdigit():
        return None
    found = None
    for place, name in zip(range(int(count)), names.split(":"), strict=False):
        given = socket.socket(fileno=_FIRST + place)
        given.set_inheritable(False)
        if name == _NAME and found is None:
            found = given
        else:
            given.close()
    return found


def keep(listener: socket.socket) -> None:
    """Have this socket kept for the next process, in place of any that was kept before."""
    notify("FDSTOREREMOVE=1", f"FDNAME={_NAME}")
    notify("FDSTORE=1", f"FDNAME={_NAME}", descriptor=listener.fileno())
