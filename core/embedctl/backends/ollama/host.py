"""Where the Ollama server is: the forms of `OLLAMA_HOST`, and whether that is this machine.

The forms are those of Ollama's own `envconfig.Host`: `host`, `host:port`, `:port`, `[::1]`, `http://…`,
`https://…/path`, quotes and blanks around them. Port 11434, or 80 and 443 where a scheme was given.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from embedctl.errors import SettingsError

DEFAULT_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}


def find_host(setting: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The server's base URL, such as `http://127.0.0.1:11434`: the setting, else `OLLAMA_HOST`, else local.

    An address that means "every interface" in `ollama serve` (`0.0.0.0`, `::`) is no address to connect to;
    it becomes loopback.

    Raises:
        SettingsError: The value is no address; names the setting or the variable.
    """
    origin, value = ("ollama.host", setting) if setting else ("OLLAMA_HOST", environ.get("OLLAMA_HOST", ""))
    value = value.strip(" \t\r\n\"'")
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    if scheme not in _SCHEME_PORTS:
        raise _wrong(origin, value, f"the scheme {scheme!r} is neither http nor https")
    try:
        bare_ipv6 = isinstance(ipaddress.ip_address(rest.strip("[]")), ipaddress.IPv6Address)
    except ValueError:
        bare_ipv6 = False
    try:
        parts = urlsplit(f"//[{rest.strip('[]')}]" if bare_ipv6 else f"//{rest}")
        host, port = parts.hostname or "127.0.0.1", parts.port
    except ValueError as error:
        raise _wrong(origin, value, str(error)) from error
    if port is None:
        port = _SCHEME_PORTS[scheme] if separator else DEFAULT_PORT
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}{parts.path.rstrip('/')}"


def is_local(url: str) -> bool:
    """Whether `url` names this machine by a loopback address, so that its processes can be seen here."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def port_of(url: str) -> int:
    return urlsplit(url).port or DEFAULT_PORT


def _wrong(origin: str, value: str, why: str) -> SettingsError:
    return SettingsError(
        f"{origin} = {value!r} is not an address",
        why=why,
        remedy="write it as host, host:port, http://host:port or https://host",
    )
