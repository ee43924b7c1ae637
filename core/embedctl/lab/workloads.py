"""The texts that are measured with: fixed, multilingual, named by the hash of their content."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from embedctl.errors import UsageError

_PACKAGE = Path(__file__).resolve().parent.parent
_PER_STRATUM: Final = 16


def assets_folder() -> Path:
    """The folder of the shipped texts: inside the installed package, or at the top of a checkout.

    Raises:
        UsageError: Neither is there.
    """
    for folder in (_PACKAGE / "_assets", _PACKAGE.parent.parent / "assets"):
        if (folder / "texts").is_dir():
            return folder
    raise UsageError(
        "The built-in texts are missing",
        why=f"there is no texts folder beside {_PACKAGE}",
        remedy="install embedctl again",
    )


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts in a fixed order; `queries` are short, `passages` a paragraph each."""

    name: str
    queries: tuple[str, ...]
    passages: tuple[str, ...]
    digest: str
    """SHA-256 over all texts in order, first 12 digits."""

    @property
    def label(self) -> str:
        return f"{self.name} {self.digest}"

    def batch(self, size: int, number: int) -> list[str]:
        """The `number`-th batch of `size` passages; neighbours differ, and the same number gives the same."""
        chooser = random.Random(f"{self.digest}:{size}:{number}")  # a workload, no secret
        return chooser.choices(self.passages, k=size)

    def query(self, number: int) -> str:
        return self.queries[number % len(self.queries)]

    def of_length(self, tokens: int, count: Callable[[Sequence[str]], int]) -> tuple[str, ...]:
        """Sixteen texts of `tokens` tokens, special ones included, cut from passages that follow each other.

        A tokenizer may reach no text of exactly that length: then one token less, rarely two.
        """
        return _stratum(self, tokens, count)

    def within(self, tokens: int, count: Callable[[Sequence[str]], int]) -> Workload:
        """The texts of at most `tokens` tokens; itself where that leaves out nothing, or all of a kind."""
        queries, passages = (
            tuple(text for text in texts if count([text]) <= tokens)
            for texts in (self.queries, self.passages)
        )
        if (queries, passages) == (self.queries, self.passages) or not queries or not passages:
            return self
        return Workload(f"{self.name}, up to {tokens} tokens", queries, passages, _digest(queries + passages))

    def of_questions(self) -> Workload:
        """The same with questions in place of the passages: a few times fewer tokens in every batch."""
        return Workload(
            f"{self.name}, batches of questions", self.queries, self.queries, _digest(self.queries * 2)
        )


@lru_cache(maxsize=32)
def longest(texts: tuple[str, ...], count: Callable[[Sequence[str]], int] | None) -> int:
    """Tokens of the longest text; words where nobody counts tokens, which are fewer."""
    return max(count([text]) if count is not None else len(text.split()) for text in texts)


@lru_cache(maxsize=32)
def _stratum(workload: Workload, tokens: int, count: Callable[[Sequence[str]], int]) -> tuple[str, ...]:
    chooser = random.Random(f"{workload.digest}:tokens:{tokens}")  # a workload, no secret
    texts = []
    for _ in range(_PER_STRATUM):
        text = chooser.choice(workload.passages)
        while count([text]) < tokens:
            text += " " + chooser.choice(workload.passages)
        least, most = 0, len(text)  # characters that certainly fit, and that may not
        while least < most:
            middle = (least + most + 1) // 2
            if count([text[:middle]]) <= tokens:
                least = middle
            else:
                most = middle - 1
        texts.append(text[:least])
    return tuple(texts)


def built_in() -> Workload:
    """Questions and passages from XQuAD in six languages (assets/texts/ATTRIBUTION.md), shuffled once.

    Raises:
        UsageError: The files are not there.
    """
    texts: dict[str, tuple[str, ...]] = {}
    for kind in ("queries", "passages"):
        with (assets_folder() / "texts" / f"{kind}.jsonl").open(encoding="utf-8") as lines:
            loaded = [str(json.loads(line)["text"]) for line in lines]
        random.Random(0).shuffle(loaded)  # languages mixed, always in the same order
        texts[kind] = tuple(loaded)
    queries, passages = texts["queries"], texts["passages"]
    return Workload("xquad-6-languages", queries, passages, _digest(queries + passages))


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:12]
