"""The length limit, found by texts that differ in their last word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count as counter

import numpy as np
import pytest

from embedctl.demo.session import demo_model_folder
from embedctl.errors import BackendError, Cancelled
from embedctl.lab.limits import LONGEST, Ruler, find_limit
from embedctl.lab.tokens import token_counter
from embedctl.records import EmbedResult, LengthLimit, TextFailure
from tests.support.ollama_faults import count_words

RULER = Ruler(count_words)
Embed = Callable[[str], EmbedResult]


def reads(limit: int, *, noise: float = 0.0, told: bool = True) -> Embed:
    """Embeds the number of the last word that it reads; a word is a token, and two special ones."""
    calls = counter()

    def embed(text: str) -> EmbedResult:
        words = text.split()
        last = words[: limit - 2][-1]
        jitter = noise * (next(calls) % 3)
        row = np.array([[1.0, sum(map(ord, last)) / 1e4 + jitter]], np.float32)
        cut = (0,) if told and len(words) + 2 > limit else ()
        return EmbedResult(row, "b", min(limit, len(words) + 2), cut, (), 0.0)

    return embed


@pytest.mark.parametrize("claimed", [8192, 512, None])
@pytest.mark.parametrize("limit", [9, 256, 511, 512, 513, 2047, 2048, 2049, 8191, 8192])
def test_the_limit_is_found_to_the_token_whatever_is_claimed(limit: int, claimed: int | None) -> None:
    found = find_limit("b", reads(limit), RULER, claimed)
    assert (found.effective, found.at_least, found.claimed, found.told) == (limit, False, claimed, True)
    assert found.reported == limit
    assert found.probes <= 17


def test_a_truthful_backend_costs_three_lengths() -> None:
    assert find_limit("b", reads(2048), RULER, 2048).probes == 3


def test_a_claim_beyond_the_usual_is_tried() -> None:
    assert find_limit("b", reads(32_768), RULER, 32_768).effective == 32_768


def test_no_end_is_told_as_at_least() -> None:
    found = find_limit("b", reads(10**6), RULER, 512)
    assert (found.effective, found.at_least, found.told, found.reported) == (LONGEST + 1, True, None, None)


@pytest.mark.parametrize("noise", [1e-6, 1e-5])
def test_the_backends_own_noise_is_no_reading(noise: float) -> None:
    assert find_limit("b", reads(300, noise=noise), RULER, 512).effective == 300


def refusing(limit: int, how: Callable[[], EmbedResult]) -> Embed:
    answer = reads(10**6)
    return lambda text: how() if len(text.split()) + 2 > limit else answer(text)


def error() -> EmbedResult:
    raise BackendError("Ollama refused", why="the input length exceeds the context length")


def failure() -> EmbedResult:
    return EmbedResult(np.full((1, 2), np.nan, np.float32), "b", 0, (), (TextFailure(0, "too long"),), 0.0)


@pytest.mark.parametrize("how", [error, failure])
def test_a_refusal_is_a_limit_of_its_own_kind(how: Callable[[], EmbedResult]) -> None:
    found = find_limit("b", refusing(300, how), RULER, 512)
    assert (found.effective, found.refuses, found.told) == (300, True, None)


def test_a_backend_that_reads_nothing_has_no_limit_but_a_reason() -> None:
    def constant(text: str) -> EmbedResult:
        return EmbedResult(np.ones((1, 2), np.float32), "b", 1, (), (), 0.0)

    found = find_limit("b", constant, RULER, 512)
    assert (found.effective, found.why) == (None, "the last of 8 tokens changes nothing")
    assert find_limit("b", lambda text: error(), RULER, 512).why.startswith("the input length")


def test_a_cancel_is_no_refusal() -> None:
    def cancelled(text: str) -> EmbedResult:
        raise Cancelled

    with pytest.raises(Cancelled):
        find_limit("b", cancelled, RULER, 512)


def test_lengths_are_exact_for_the_models_own_tokenizer() -> None:
    count = token_counter(demo_model_folder())
    assert count is not None
    ruler = Ruler(count)
    assert ruler.unit == "tokens"
    for length in (8, 511, 512, 2049):
        first, second = ruler.ending(length, 0), ruler.ending(length, 1)
        assert [count([text]) for text in (ruler.text(length), first, second)] == [length] * 3
        assert first != second
        assert first.split()[:-1] == second.split()[:-1] == ruler.text(length).split()[:-1]


def characters(texts: Sequence[str]) -> int:
    return sum(map(len, texts))


@pytest.mark.parametrize("count", [None, characters])
def test_without_a_tokenizer_that_knows_words_lengths_are_words(
    count: Callable[[Sequence[str]], int] | None,
) -> None:
    ruler = Ruler(count)
    assert (ruler.unit, len(ruler.text(40).split())) == ("words", 40)
    found: LengthLimit = find_limit("b", reads(258), ruler, 258)
    assert (found.effective, found.unit) == (256, "words")
