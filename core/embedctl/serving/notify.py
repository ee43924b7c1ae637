"""Telling systemd how far the service is (the protocol of sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(*fields: str) -> None:
    """Send fields such as `READY=1`; nothing happens where systemd did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name in Linux's abstract space
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.sendto("\n".join(fields).encode(), address)
    except OSError as error:
        log.warning("systemd could not be told %s: %s", fields[0], error)
