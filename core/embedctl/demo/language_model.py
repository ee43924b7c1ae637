"""The demo's language model: simulated words at a real cost.

What it writes is a fixed text over and over. Each word costs a real product of a matrix with a vector, spread
over memory as a small model's decoding is, so that an embedding backend beside it and it disturb each other
in truth, if not to the degree that a real model's would.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

TAG: Final = "demo-llm:latest"
SIZE: Final = 50_000_000
"""Bytes that it says it holds; near to what its matrix holds."""
_TEXT: Final = "the lamp is lit and the ships go by one after another while the keeper counts them "
_WORDS: Final = tuple(_TEXT.split())
_SIDE: Final = 3536
"""Of the matrix: 50 MB of 32-bit floats, read once for a word."""
_MOST_WORDS: Final = 128
"""Where the request does not say."""


class DemoLanguageModel:
    """What `/api/generate` answers with. One request at a time generates, as on a server with one slot."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._matrix: Any = None

    @property
    def loaded(self) -> bool:
        return self._matrix is not None

    def unload(self) -> None:
        self._matrix = None

    def lines(self, body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """One line a word, and a last one with counts and durations (nanoseconds), as Ollama streams them."""
        import numpy as np

        began = time.monotonic()
        most = int((body.get("options") or {}).get("num_predict", _MOST_WORDS))
        with self._turn:
            matrix = self._matrix
            if matrix is None:
                matrix = self._matrix = np.full((_SIDE, _SIDE), 1 / _SIDE, np.float32)
            loaded = time.monotonic()
            state = np.ones(_SIDE, np.float32)
            for number in range(most):
                state = matrix @ state
                yield _line(body, f"{_WORDS[number % len(_WORDS)]} ", done=False)
        ended = time.monotonic()
        yield _line(body, "", done=True) | {
            "done_reason": "length",
            "total_duration": _ns(ended - began),
            "load_duration": _ns(loaded - began),
            "prompt_eval_count": len(str(body.get("prompt") or "").split()),
            "prompt_eval_duration": 0,
            "eval_count": most,
            "eval_duration": _ns(ended - loaded),
        }

    def whole(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same in one answer, for `stream: false`."""
        lines = list(self.lines(body))
        return {**lines[-1], "response": "".join(str(line["response"]) for line in lines)}

    def entry(self) -> dict[str, Any]:
        """Of `/api/tags` and `/api/ps`."""
        return {
            "name": TAG,
            "model": TAG,
            "size": SIZE,
            "digest": "0" * 64,
            "details": {"format": "simulated", "family": "simulated", "families": ["simulated"]},
        }

    def show(self) -> dict[str, Any]:
        return {
            "modelfile": "# Simulated: its words are fixed, its cost is real.\n",
            "details": self.entry()["details"],
            "model_info": {"general.architecture": "simulated"},
            "capabilities": ["completion"],
        }


def _line(body: Mapping[str, Any], response: str, *, done: bool) -> dict[str, Any]:
    now = datetime.fromtimestamp(time.time(), UTC).isoformat()
    return {"model": body.get("model"), "created_at": now, "response": response, "done": done}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
