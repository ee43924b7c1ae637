"""One request on its way: its texts, the tokens made of them so far, and the vectors that came back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future

import numpy as np

from embedctl.encoder.base import Encoded
from embedctl.encoder.packing import Ints
from embedctl.encoder.runner import Vectors
from embedctl.encoder.texts import unencodable
from embedctl.encoder.tokens import Tokens
from embedctl.errors import BackendOutOfMemoryError
from embedctl.records import TextFailure

_WINDOW = 1024
_WINDOW_CHARACTERS = 500_000
"""Most texts and characters tokenised at a time. Within a window texts are sorted by length."""
_BACKGROUND_CHARACTERS = 40_000
"""Of a window tokenised beside the device: some two batches, so that the first batch is soon ready."""
_TRIED = 32
"""Texts too long for the rest of a batch that are passed over: batches of passages are 99.7 % full by it, and
not 98.2 %."""
_AHEAD = 6
"""Windows being tokenised while the device works."""

Item = tuple[int, Ints]
"""A text's index in its request, and its token ids."""


class Job:
    """One `encode` call.

    Args:
        texts: Strings; those that are not valid Unicode fail here and now.
        tokenize: From some texts to their tokens.
        background: Where to tokenise ahead; None tokenises in the calling thread when tokens are asked for.
        dimension: Of the vectors.
        normalize: Whether unit vectors are wanted.
        most_texts: Texts per batch at most; None leaves it to the token budget.
        cancelled: Asked between batches.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenize: Callable[[Sequence[str]], Tokens],
        *,
        dimension: int,
        normalize: bool = True,
        most_texts: int | None = None,
        cancelled: Callable[[], bool] | None = None,
        background: Executor | None = None,
    ) -> None:
        self.key = 0
        """Names the request for whoever submitted it."""
        self.normalize = normalize
        self.most_texts = most_texts
        self.cancelled = cancelled
        self.error: BaseException | None = None
        """Set when the whole request failed."""
        self.notes: list[str] = []
        self._texts = texts
        self._tokenize = tokenize
        self._background = background
        self._vectors = np.full((len(texts), dimension), np.nan, np.float32)
        self._counts = np.zeros(len(texts), np.int32)
        self._truncated: list[int] = []
        self._failures: dict[int, str] = {failure.index: failure.what for failure in unencodable(texts)}
        self._without_memory = 0
        self._left = len(texts) - len(self._failures)
        self._windows = self._cut()
        self._tokenizing: deque[tuple[list[int], Future[Tokens]]] = deque()
        self._ready: deque[Item] = deque()
        self._ready_tokens = 0
        self._cut_up = False
        if background is not None:
            self._ask_ahead()

    # Tokens ---------------------------------------------------------------------------------------------

    @property
    def ready_tokens(self) -> int:
        return self._ready_tokens

    @property
    def all_ready(self) -> bool:
        """Every text that is left has its tokens."""
        return self._cut_up and not self._tokenizing

    def prepare(self, tokens: int, *, wait: bool) -> None:
        """See to it that `tokens` tokens are ready, or all there are.

        With `wait` false, only what background tokenising has finished is taken over.
        """
        while self._ready_tokens < tokens and not self.all_ready:
            if self._background is None:
                window = next(self._windows, None)
                if window is None:
                    self._cut_up = True
                    return
                self._add(window, self._tokenize([self._texts[i] for i in window]))
            elif self._tokenizing:
                window, future = self._tokenizing[0]
                if not wait and not future.done():
                    return
                result = future.result()
                self._tokenizing.popleft()
                self._ask_ahead()
                self._add(window, result)
            else:
                self._ask_ahead()

    def take(self, tokens: int, texts: int) -> list[Item]:
        """Up to `texts` ready texts of at most `tokens` tokens together.

        Behind a text that is too long for what the first ones leave, others are tried: batches are fuller so.
        """
        items: list[Item] = []
        passed: list[Item] = []
        while self._ready and tokens > 0 and len(items) < texts and len(passed) < _TRIED:
            item = self._ready.popleft()
            if len(item[1]) > tokens:
                passed.append(item)
                if not items:
                    break
                continue
            tokens -= len(item[1])
            self._ready_tokens -= len(item[1])
            items.append(item)
        self._ready.extendleft(reversed(passed))
        return items

    def next_length(self) -> int:
        """Tokens of the first ready text; 0 if there is none."""
        return len(self._ready[0][1]) if self._ready else 0

    def put_back(self, items: Sequence[Item]) -> None:
        self._ready.extendleft(reversed(items))
        self._ready_tokens += sum(len(ids) for _, ids in items)

    def abandon(self) -> None:
        """Let go of all that waits."""
        for _, future in self._tokenizing:
            future.cancel()
        self._tokenizing.clear()
        self._ready.clear()
        self._ready_tokens = 0
        self._windows = iter(())

    def _cut(self) -> Iterator[list[int]]:
        room = _WINDOW_CHARACTERS if self._background is None else _BACKGROUND_CHARACTERS
        window: list[int] = []
        characters = 0
        for index in (i for i in range(len(self._texts)) if i not in self._failures):
            window.append(index)
            characters += len(self._texts[index])
            if len(window) == _WINDOW or characters >= room:
                yield window
                window, characters = [], 0
        if window:
            yield window

    def _ask_ahead(self) -> None:
        assert self._background is not None
        while len(self._tokenizing) < _AHEAD:
            window = next(self._windows, None)
            if window is None:
                self._cut_up = True
                return
            texts = [self._texts[i] for i in window]
            self._tokenizing.append((window, self._background.submit(self._tokenize, texts)))

    def _add(self, window: list[int], tokens: Tokens) -> None:
        texts = tokens.ids()
        lengths = np.fromiter((len(ids) for ids in texts), np.int32, len(window))
        self._counts[window] = lengths
        self._truncated += [window[place] for place in tokens.truncated()]
        # The longest first: a lack of memory shows at once, and equal lengths stand together.
        for place in np.argsort(-lengths, kind="stable").tolist():
            self._ready.append((window[place], texts[place]))
        self._ready_tokens += int(lengths.sum())

    # Vectors --------------------------------------------------------------------------------------------

    def is_finished(self) -> bool:
        return self._left == 0 or self.error is not None

    def add(self, indices: list[int], vectors: Vectors) -> None:
        """Take the vectors of some texts; a row of NaN is a text that failed."""
        self._vectors[indices] = vectors
        self._left -= len(indices)
        for place in np.flatnonzero(np.isnan(vectors[:, 0])).tolist():
            self._failures[indices[place]] = "the model returned a vector that is zero or not finite"

    def fail_for_memory(self, index: int) -> None:
        self._failures[index] = "memory does not suffice for this text, even alone"
        self._without_memory += 1
        self._left -= 1

    def result(self, device: str) -> Encoded:
        """The answer, once `is_finished`.

        Raises:
            BackendOutOfMemoryError: Memory sufficed for no text at all.
        """
        if self.error is not None:
            raise self.error
        if self._without_memory and self._without_memory == len(self._texts):
            raise BackendOutOfMemoryError(
                f"Memory on {device} does not suffice for a single text",
                why="the batch was halved down to one text and still did not fit",
                remedy="shorten the texts, set native.max_tokens, or free memory on the device",
            )
        return Encoded(
            vectors=self._vectors,
            token_counts=self._counts,
            truncated=tuple(sorted(self._truncated)),
            failures=tuple(TextFailure(index, self._failures[index]) for index in sorted(self._failures)),
            notes=tuple(self.notes),
        )
