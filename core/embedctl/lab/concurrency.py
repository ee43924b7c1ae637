"""The four shapes of a request: one text, a list, independent requests at once, a list of mixed lengths.

A text's vector must not depend on the company in which it is sent. The vector of a text sent alone, with
nothing else under way, is what all others are held against: wrong vectors have been seen under concurrency
alone, and in lists alone.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from embedctl.errors import BackendError
from embedctl.records import EmbedResult
from embedctl.similarity import cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray

Embed = Callable[[Sequence[str]], EmbedResult]

THREADS: Final = 8
ROUNDS: Final = 3
AGREE: Final = 0.999
"""A text's vectors alone and in company: batches of other shapes sum in another order, and no more."""


@dataclass(slots=True)
class ShapeResult:
    """What one shape of request gave, text by text."""

    shape: str
    texts: list[int] = field(default_factory=list)
    """Places of the texts, one entry per vector."""
    cosines: list[float] = field(default_factory=list)
    """Against the text's vector sent alone; NaN where there was none."""
    others: list[int | None] = field(default_factory=list)
    """Place of the text whose vector, sent alone, this one is; None if it is none of them."""
    errors: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[int]:
        """Indices into the lists of the vectors that are not the text's own."""
        return [index for index, cosine in enumerate(self.cosines) if not cosine >= AGREE]

    @property
    def exchanged(self) -> bool:
        """Whether every wrong vector is that of another text."""
        wrong = self.wrong
        return bool(wrong) and all(self.others[index] not in (None, self.texts[index]) for index in wrong)


@dataclass(frozen=True, slots=True)
class Solo:
    """The vectors of some texts, each sent alone."""

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]
    """Shape (n, dimension); NaN where a text got none."""

    def compare(self, result: ShapeResult, places: Sequence[int], vectors: NDArray[Any]) -> None:
        """Add vectors of the texts at `places` to a shape's result."""
        own = self.vectors[list(places)]
        if own.shape != vectors.shape:
            result.errors.append(f"{vectors.shape[1]} dimensions instead of {self.vectors.shape[1]}")
            return
        near = np.nan_to_num(vectors) @ self.vectors.T  # of unit norm, or the gate says so
        result.texts += places
        result.cosines += cosines(vectors, own).tolist()
        result.others += [int(row.argmax()) if row.max() >= AGREE else None for row in near]


def in_a_list(embed: Embed, solo: Solo, shape: str, rounds: int) -> ShapeResult:
    """All texts in one request, in another order each time: what comes back must be in the order sent."""
    result = ShapeResult(shape)
    order = list(range(len(solo.texts)))
    for number in range(rounds):
        random.Random(number).shuffle(order)  # an order, no secret
        try:
            vectors = embed([solo.texts[place] for place in order]).vectors
        except BackendError as error:
            result.errors.append(error.what)
        else:
            solo.compare(result, list(order), vectors)
    return result


def at_once(embed: Embed, solo: Solo, threads: int = THREADS, rounds: int = ROUNDS) -> ShapeResult:
    """Every text in a request of its own, `threads` of them under way at any time."""
    result = ShapeResult("concurrent requests")
    lock, start = threading.Lock(), threading.Barrier(threads)

    def client(number: int) -> None:
        places = [place for _ in range(rounds) for place in range(len(solo.texts))][number::threads]
        start.wait(60)  # none is alone at the beginning
        for place in places:
            try:
                vectors = embed([solo.texts[place]]).vectors
            except BackendError as error:
                with lock:
                    result.errors.append(error.what)
            else:
                with lock:
                    solo.compare(result, [place], vectors)

    with ThreadPoolExecutor(threads, "check") as pool:
        for done in [pool.submit(client, number) for number in range(threads)]:
            done.result()
    return result
