"""API keys: where they come from, and how one is compared without telling how near a guess was."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from embedctl.errors import SettingsError
from embedctl.settings import GatewaySettings

VARIABLE: Final = "EMBEDCTL_API_KEY"
_SHORTEST: Final = 16
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")


class Keys:
    """The keys that open the gateway. Only their hashes are kept."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hashes = tuple(_hash(key.encode()) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def accept_any(self, given: Iterable[bytes]) -> bool:
        """Whether one of `given` is a key; takes the same time whichever it is and however near it comes."""
        found = False
        for key in given:
            asked = _hash(key)
            for known in self._hashes:
                found |= hmac.compare_digest(asked, known)
        return found


def load_keys(settings: GatewaySettings) -> Keys:
    """The keys of `EMBEDCTL_API_KEY` (several with commas between) and of `gateway.key_file`.

    Raises:
        SettingsError: A key is too short to be safe, or the file cannot be read or is readable by others; or
            the gateway would listen beyond loopback without a key.
    """
    keys = [key for key in re.split(r"[,\s]+", os.environ.get(VARIABLE, "")) if key]
    _check(keys, VARIABLE)
    if settings.key_file is not None:
        file = Path(settings.key_file).expanduser()
        found = _read(file)
        _check(found, str(file))
        keys += found
    if not keys and not is_loopback(settings.host):
        raise SettingsError(
            f"The gateway was not started: {settings.host} can be reached by other machines",
            why="beyond loopback it serves only with an API key, and none is set",
            remedy=f"set {VARIABLE} or gateway.key_file, or gateway.host to 127.0.0.1",
        )
    return Keys(keys)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost may mean anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _check(keys: Iterable[str], origin: str) -> None:
    for key in keys:
        if len(key) < _SHORTEST or not _PRINTABLE.fullmatch(key):
            raise SettingsError(
                f"A key in {origin} is not allowed",
                why=f"a key has at least {_SHORTEST} printable ASCII characters",
                remedy="make one with `openssl rand -hex 32`",
            )


def _read(file: Path) -> list[str]:
    try:
        with file.open(encoding="ascii") as stream:
            status = os.fstat(stream.fileno())
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The key file {file} cannot be read",
            why=getattr(error, "strerror", None) or str(error),
            remedy="correct gateway.key_file, or the file",
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (os.getuid(), 0):
        raise SettingsError(
            f"The key file {file} is not safe",
            why="other users can read or change it, or it belongs to one",
            remedy=f"chmod 600 {file}, and own it",
        )
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not keys:
        raise SettingsError(
            f"The key file {file} has no key in it", remedy="write one key a line, or unset gateway.key_file"
        )
    return keys
