"""Modules that take seconds to import, imported by the tests that use them.

Each of the processes that share the tests out collects all of them: what a test file imports at its head,
every process imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def late(name: str) -> Any:
    """The module of that name; it is imported when something of it is first asked for."""
    return _Late(name)


class _Late:
    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, name: str) -> Any:
        if name in ("__bases__", "__test__"):  # pytest asks these of whatever a test file holds
            raise AttributeError(name)
        return getattr(import_module(self._name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(import_module(self._name), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(import_module(self._name), name)
