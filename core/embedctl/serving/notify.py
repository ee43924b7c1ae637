"""Telling systemd how far the service is (the protocol of sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(*fields: str, descriptor: int | None = None) -> None:
    """Send fields such as `READY=1`, and a copy of a descriptor where the fields speak of one.

    Nothing happens where systemd did not start this process.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in Linux's abstract space
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            carried = [] if descriptor is None else [descriptor]
            datagrams.connect(address)  # send_fds of Python 3.11 takes an address and forgets it
            socket.send_fds(datagrams, ["\n".join(fields).encode()], carried)
    except OSError as error:
        log.warning("systemd could not be told %s: %s", fields[0], error)
