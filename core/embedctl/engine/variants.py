"""Which backends a study asks, and the native one under other settings (`quality --vary`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from embedctl.errors import UsageError
from embedctl.records import BackendName
from embedctl.settings import NativeSettings

VARIED: Final = ("dtype", "max_tokens", "attention")
"""Settings of `[native]` that change vectors."""


def parse_vary(text: str) -> tuple[Mapping[str, Any], ...]:
    """The settings of each variant, in order: `dtype=float32,float16` gives two; nothing gives none.

    Raises:
        UsageError: It is not written so, or a value is not allowed.
    """
    if not text.strip():
        return ()
    name, separator, values = (part.strip() for part in text.partition("="))
    asked = tuple(dict.fromkeys(value.strip() for value in values.split(",") if value.strip()))
    if not separator or name not in VARIED or len(asked) < 2:
        raise UsageError(
            f"{text!r} says nothing that can be varied",
            why=f"it is not one of {', '.join(VARIED)} with two values or more",
            remedy="write it as dtype=float32,float16,float8 or max_tokens=512,8192",
        )
    return tuple({name: value} for value in asked)


def with_changes(settings: NativeSettings, changes: Mapping[str, Any]) -> NativeSettings:
    """The settings with some of them changed, checked.

    Raises:
        UsageError: A value is not allowed.
    """
    try:
        return NativeSettings.model_validate({**settings.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"native.{name} = {first['input']} is not allowed",
            why=first["msg"],
            remedy=f"`embedctl config show` describes native.{name}",
        ) from error


def require_backends(known: Collection[BackendName], asked: Sequence[BackendName] | None) -> None:
    """Refuse a backend that there is not.

    Raises:
        UsageError: Names those there are.
    """
    for name in asked or ():
        if name not in known:
            raise UsageError(f"There is no backend {name!r}", remedy=f"use {' or '.join(known)}")
