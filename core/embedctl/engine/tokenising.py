"""What the model's tokenizer makes of texts; for that the model's folder is enough, nothing is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from embedctl.records import BackendState, BackendStatus, Failure, Tokenisation
from embedctl.settings import Settings

if TYPE_CHECKING:
    from embedctl.lab.pieces import ModelTokenizer


class Tokenising:
    """Reads the tokenizer when it is first needed and keeps it until its file changes. Thread-safe.

    Args:
        folder: The model's folder; None while it is not on disk.
        native: The native backend's status: loaded, it says how much of a text it reads.
    """

    def __init__(
        self, settings: Settings, folder: Callable[[], Path | None], native: Callable[[], BackendStatus]
    ) -> None:
        self._repo = settings.model.repo
        self._most = settings.native.max_tokens
        self._folder = folder
        self._native = native
        self._lock = threading.Lock()
        self._kept: tuple[tuple[Path, int], ModelTokenizer | None] | None = None
        """Of which file, as it was then."""

    def tokens(self, texts: Sequence[str]) -> Tokenisation:
        """See `EngineFacade.tokens`."""
        folder = self._folder()
        if folder is None:
            return self._absent(
                f"The files of {self._repo} are not on this machine",
                "the pieces come from the model's own tokenizer",
                "download it: `embedctl models download`",
            )
        try:
            tokenizer = self._of(folder)
        except Exception as error:  # a damaged file raises whatever the parser likes, a bare Exception
            return self._absent(
                f"The tokenizer of {self._repo} cannot be read",
                f"{folder / 'tokenizer.json'}: {error}",
                "check the files: `embedctl models verify`",
            )
        if tokenizer is None:
            return self._absent(
                f"{self._repo} has no tokenizer.json",
                "pieces are shown for models with a fast tokenizer alone",
                "its tokens are still counted by the backends",
            )
        limit, source = self._limit(tokenizer)
        return Tokenisation(self._repo, tokenizer(texts, limit), limit, source)

    def _of(self, folder: Path) -> ModelTokenizer | None:
        from embedctl.lab.pieces import model_tokenizer

        with self._lock:
            file = folder / "tokenizer.json"
            key = file, file.stat().st_mtime_ns if file.is_file() else 0
            if self._kept is None or self._kept[0] != key:
                self._kept = key, model_tokenizer(folder)
            return self._kept[1]

    def _limit(self, tokenizer: ModelTokenizer) -> tuple[int | None, str]:
        native = self._native()
        if native.state is BackendState.READY and native.max_tokens is not None:
            return native.max_tokens, "native, as it is loaded"
        if self._most is not None and (tokenizer.limit is None or self._most < tokenizer.limit):
            return self._most, "setting native.max_tokens"
        return tokenizer.limit, tokenizer.limit_source

    def _absent(self, what: str, why: str, remedy: str) -> Tokenisation:
        return Tokenisation(self._repo, (), None, what, Failure(what, why, remedy))
