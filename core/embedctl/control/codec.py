"""Values as bytes and back: the façade's arguments, results and messages.

A JSON document, then the raw bytes of the arrays that it names. The document says itself what it holds, so
that a result declared as `object`, a union of messages or a record added tomorrow need nothing here: a record
is an object with its class under "$", a tuple a list, and what JSON has no word for an object with a "$" of
its own. Only classes of our records, messages, series and settings are ever made anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Final

from embedctl.worker.frames import FrameError

Buffer = bytes | bytearray | memoryview

_TAG: Final = "$"
_ALIGN: Final = 16
"""Arrays start at multiples of this, as numbers of any kind like to lie."""


def encode(value: object) -> tuple[int, bytes]:
    """The value as bytes, and how many of them are the document.

    Raises:
        TypeError: The value holds something that cannot cross.
    """
    writer = _Writer()
    document = json.dumps(writer.plain(value), separators=(",", ":")).encode("ascii")
    document += b" " * (-len(document) % _ALIGN)
    return len(document), b"".join((document, *writer.arrays))


def decode(payload: Buffer, length: int) -> Any:
    """The inverse of `encode`. Arrays are views of `payload`, writable where that is.

    Raises:
        FrameError: The bytes hold no value, or one of a class that is not known here.
    """
    view = memoryview(payload)
    try:
        return _rich(json.loads(bytes(view[:length])), view[length:])
    except (ValueError, KeyError, TypeError) as error:
        raise FrameError(f"no value of ours: {type(error).__name__}: {error}") from error


class _Writer:
    """Turns values into what JSON knows, and gathers the arrays' bytes."""

    def __init__(self) -> None:
        self.arrays: list[Buffer] = []
        self._size = 0

    def plain(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
        if isinstance(value, Enum):
            return {_TAG: kind.__name__, "value": value.value}
        if isinstance(value, tuple):
            return [self.plain(item) for item in value]
        if isinstance(value, Mapping):
            if all(type(key) is str and key != _TAG for key in value):
                return {key: self.plain(item) for key, item in value.items()}
            return {_TAG: "map", "items": [self.plain(pair) for pair in value.items()]}
        if isinstance(value, list | set | frozenset):
            tag = "list" if isinstance(value, list) else "set"
            return {_TAG: tag, "items": [self.plain(item) for item in value]}
        if isinstance(value, bytes):
            return {_TAG: "bytes", "at": self._put(value), "size": len(value)}
        if (record := _records().get(kind.__name__)) is not None:
            return {_TAG: kind.__name__} | {name: self.plain(getattr(value, name)) for name in record.fields}
        return self._array(value)

    def _array(self, value: Any) -> Any:
        import numpy as np

        if isinstance(value, np.generic):
            return self.plain(value.item())
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            whole = np.ascontiguousarray(value)
            at = self._put(whole.reshape(-1).view(np.uint8).data)
            return {_TAG: "array", "at": at, "dtype": whole.dtype.str, "shape": list(value.shape)}
        raise TypeError(f"a {type(value).__name__} cannot cross to another process")

    def _put(self, data: Buffer) -> int:
        at, size = self._size, memoryview(data).nbytes
        gap = -size % _ALIGN
        self.arrays += (data, b"\0" * gap)
        self._size += size + gap
        return at


def _rich(plain: Any, arrays: memoryview) -> Any:
    if isinstance(plain, list):
        return tuple(_rich(item, arrays) for item in plain)
    if not isinstance(plain, dict):
        return plain
    tag = plain.pop(_TAG, None)
    if tag is None:
        return {key: _rich(item, arrays) for key, item in plain.items()}
    if tag in ("list", "set", "map"):
        items = [_rich(item, arrays) for item in plain["items"]]
        return {"list": list, "set": frozenset, "map": dict}[tag](items)
    if tag == "float":
        return float(plain["value"])
    if tag == "bytes":
        return bytes(arrays[plain["at"] : plain["at"] + plain["size"]])
    if tag == "array":
        import numpy as np

        dtype, shape = np.dtype(plain["dtype"]), tuple(plain["shape"])
        count = math.prod(shape)
        return (
            np.frombuffer(arrays, dtype, count, plain["at"]).reshape(shape)
            if count
            else np.empty(shape, dtype)
        )
    return _records()[tag].make(**{key: _rich(item, arrays) for key, item in plain.items()})


@dataclass(frozen=True, slots=True)
class _Record:
    """A class whose values may cross."""

    make: Callable[..., Any]
    fields: tuple[str, ...] = ()


@cache
def _records() -> Mapping[str, _Record]:
    """By the class's name."""
    from pydantic import BaseModel

    from embedctl import events, records, series, settings

    known: dict[str, _Record] = {}
    for module in (events, records, series, settings):
        for name, found in vars(module).items():
            if not isinstance(found, type) or found.__name__ != name:
                continue
            if is_dataclass(found):
                known[name] = _Record(found, tuple(field.name for field in fields(found)))
            elif issubclass(found, Enum):
                known[name] = _Record(found)
            elif issubclass(found, BaseModel):
                # Checked where they come from; a validation would put the environment here over them.
                known[name] = _Record(found.model_construct, tuple(found.model_fields))
    return known
