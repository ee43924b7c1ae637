"""The limit of open files: every connection is one, and so are the history, the worker's socket, the logs."""

from __future__ import annotations

import logging
import resource
from typing import Final

log = logging.getLogger(__name__)

_OWN_FILES: Final = 512
"""What the rest of the process may open: its files, its own connections to Ollama, control clients."""
_LEAST: Final = 16


def room_for(connections: int) -> int:
    """How many of so many connections may be open at once.

    The process's soft limit is raised for them as far as the hard one goes, and no further than they need:
    1,024 is usual, and whoever runs out of it can neither answer nor store anything.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError) as error:  # macOS has a limit of its own beneath the hard one
        log.warning("the limit of open files stays at %d: %s", soft, error)
        most = soft
    room = min(connections, max(_LEAST, most - _OWN_FILES))
    if room < connections:
        log.warning(
            "%d connections are let in at once, not %d: this process may open %d files (ulimit -Hn)",
            room, connections, most,
        )  # fmt: skip
    return room
