from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedctl.backends.ollama import OllamaBackend
from embedctl.settings import ModelSettings, OllamaSettings
from tests.support.fake_processes import FakeProcesses


@pytest.fixture
def processes() -> FakeProcesses:
    return FakeProcesses()


@pytest.fixture
def backend_at(processes: FakeProcesses) -> Iterator[Callable[..., OllamaBackend]]:
    """Makes backends and closes them at the end. Settings by name; the rest goes to the constructor."""
    made: list[OllamaBackend] = []

    def make(host: str | None, *, tag: str = "bge-m3", **given: Any) -> OllamaBackend:
        settings = {key: given.pop(key) for key in list(given) if key in OllamaSettings.model_fields}
        given.setdefault("table", processes)
        made.append(
            OllamaBackend(OllamaSettings(host=host, **settings), ModelSettings(ollama_tag=tag), **given)
        )
        return made[-1]

    yield make
    for backend in made:
        backend.close()
