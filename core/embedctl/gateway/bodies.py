"""The body of a request as JSON, without letting a hostile one fill the memory or stop everybody else."""

from __future__ import annotations

from typing import Final

import orjson

from embedctl.gateway.problems import Problem
from embedctl.settings import GatewaySettings

LARGE: Final = 256 * 1024
"""Bytes from which on a body is looked at beside the event loop: it takes about half a millisecond."""
_OTHERS: Final = 1000
"""Values that a request may have beside its texts or token ids."""


def read_json(body: bytes, settings: GatewaySettings) -> object:
    """The value of a body.

    The parser makes all objects in one go, and no other thread runs meanwhile: 32 MiB of text take it 50 ms,
    but 32 MiB of `[],` more than two seconds and a gigabyte. So those of a large body are counted first.

    Raises:
        Problem: It is no JSON, or has more values than any request within the limits.
    """
    if len(body) >= LARGE and _too_many(
        body, lists=settings.max_texts + _OTHERS, values=settings.max_tokens + settings.max_texts + _OTHERS
    ):
        raise Problem(
            400,
            "The body has more values than a request may have; send fewer texts or token ids at once",
            code="too_many_values",
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"The body is not valid JSON: {error}", code="invalid_json") from None


def _too_many(body: bytes, *, lists: int, values: int) -> bool:
    """Whether there are more lists and objects, or more values in all, than that.

    Once escaped characters are gone, every second piece between quotation marks is a string.
    """
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    pieces = plain.split(b'"', 2 * values)
    if len(pieces) > 2 * values:
        return True
    rest = b"".join(pieces[::2])
    opened = rest.count(b"[") + rest.count(b"{")
    return opened > lists or opened + rest.count(b",") > values
