"""Who may open the console in a browser: whoever holds the key, from this server's own pages alone.

Listening on loopback keeps other machines out, but neither this machine's other users nor the web pages that
the same browser shows: a page may open a WebSocket to any address, and have a name of its own resolved to
loopback (DNS rebinding). So each request must name a loopback host, come from a page of that very host if
from any, and bring the key: once in the address, from then on in a cookie.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from embedctl.gateway.keys import is_loopback

KEY: Final = web.AppKey("KEY", str)
"""Under which the application keeps the key."""
PARAMETER: Final = "key"
"""Of the address that brings it."""


@web.middleware
async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request in, or answer what is wrong with it."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not _is_loopback(hosts[0]):
        raise web.HTTPForbidden(text="The Host header names no loopback address; open localhost.\n")
    if any(origin != f"http://{hosts[0]}" for origin in request.headers.getall("Origin", [])):
        raise web.HTTPForbidden(text="Another page may not open the console.\n")
    key = request.app[KEY]
    cookie = _cookie_name(hosts[0])
    given = request.query.get(PARAMETER)
    if given is None:
        if not _same(request.cookies.get(cookie, ""), key):
            raise web.HTTPForbidden(text="Open the address that `embedctl web` printed: it has the key.\n")
        return await handler(request)
    if not _same(given, key):
        raise web.HTTPForbidden(text="This is not the key of this `embedctl web`: open what it printed.\n")
    # Without the key in it, the address may stand in the browser's history or be shown to others.
    answer = web.HTTPSeeOther("/")
    answer.set_cookie(cookie, key, httponly=True, samesite="Lax")
    raise answer


async def seal(request: web.Request, answer: web.StreamResponse) -> None:
    """Have the browser fetch nothing from elsewhere, keep nothing, and show the page in no other page."""
    answer.headers.update(
        {
            "Content-Security-Policy": "default-src 'none'; script-src 'self'; font-src 'self'; "
            "style-src 'self' 'unsafe-inline'; img-src 'self' data:; "  # the terminal styles itself
            f"connect-src 'self' ws://{request.host}; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
    )


def _is_loopback(host: str) -> bool:
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return name is not None and parts.netloc == host and "@" not in host and is_loopback(name)


def _cookie_name(host: str) -> str:
    """A name of its own per port: a browser shows a host's cookies to all its ports."""
    return f"embedctl-{urlsplit(f'//{host}').port or 80}"


def _same(given: str, key: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), key.encode())
