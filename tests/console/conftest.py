"""Every console test shows times in UTC, and no style sheet is parsed twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from textual.css.stylesheet import Stylesheet


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True, scope="session")
def _styles_parsed_once() -> Iterator[None]:
    """Rules depend on the text and the theme's variables alone, and nobody changes them.

    Textual parses some hundred sheets whenever an app starts or shows a screen for the first time: a sixth of
    what the console's tests would cost.
    """
    parse = Stylesheet._parse_rules
    parsed: dict[Any, Any] = {}

    def once(self: Stylesheet, *args: Any, **kwargs: Any) -> Any:
        key = (args, frozenset(kwargs.items()), frozenset(self._variables.items()))
        if key not in parsed:
            parsed[key] = parse(self, *args, **kwargs)
        return parsed[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stylesheet, "_parse_rules", once)
        yield
