"""Large bodies: hostile ones are refused before they are made objects of, and texts are counted in pieces."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import httpx
import orjson
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from embedctl.gateway import bodies, calls, counting
from embedctl.gateway.inputs import read_inputs
from embedctl.gateway.keys import Keys
from embedctl.gateway.problems import Problem
from embedctl.gateway.server import Gateway
from embedctl.settings import GatewaySettings
from tests.support.fake_engine import FakeEngine

LIMITS = GatewaySettings(port=0, max_texts=50, max_tokens=1000)
AWKWARD = ["[" * 3000, '{"a": [,,,,]}' * 500, "\\", '\\"', 'ends in a backslash \\\\"', "]," * 3000, "ü这"]


@pytest.fixture(autouse=True)
def every_body_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LARGE", 0)
    monkeypatch.setattr(calls, "LARGE", 0)


@pytest.mark.parametrize(
    "dump", [json.dumps, lambda value: orjson.dumps(value).decode()], ids=["ascii", "utf8"]
)
@pytest.mark.parametrize("given", [AWKWARD, list(range(1000)), [[1, 2]] * 50], ids=["texts", "ids", "lists"])
def test_what_is_within_the_limits_is_read_whatever_its_texts_hold(
    given: object, dump: Callable[[object], str]
) -> None:
    whole = {"model": "m", "input": given, "options": {"a": [1, {}]}}
    assert bodies.read_json(dump(whole).encode(), LIMITS) == whole


@pytest.mark.parametrize(
    "value", ["[],", "{},", '"",', "7,", "[[7]],", '{"a":7},', "null,", '"\\"",', "[\n],"]
)
def test_more_values_than_a_request_may_have_are_counted_and_not_made(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orjson, "loads", None)
    with pytest.raises(Problem) as refused:
        bodies.read_json(b'{"input":[' + value.encode() * 10_000, LIMITS)
    assert refused.value.code == "too_many_values"


def test_a_large_body_is_looked_at_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noted(body: bytes, settings: GatewaySettings) -> object:
        threads.append(threading.current_thread().name)
        return bodies.read_json(body, settings)

    monkeypatch.setattr(calls, "read_json", noted)
    gateway = Gateway(FakeEngine(), LIMITS, keys=Keys())
    with httpx.Client(base_url=gateway.start()) as client:
        bomb = client.post("/v1/embeddings", content=b'{"model":"embedctl","input":[' + b"[]," * 5000)
        good = client.post("/v1/embeddings", json={"model": "embedctl", "input": ["a", "b"]})
        monkeypatch.setattr(calls, "LARGE", 1000)
        small = client.post("/api/embed", json={"model": "embedctl", "input": ["a"]})
    gateway.stop()
    assert (bomb.status_code, bomb.json()["error"]["code"]) == (400, "too_many_values")
    assert (good.status_code, small.status_code) == (200, 200)
    assert [name == "gateway" for name in threads] == [False, False, True]


@pytest.mark.parametrize(
    ("ids", "said"),
    [([1, True, 2], "a boolean"), ([1, 2.0], "a number"), ([3, "a"], "a string"), ([4, -1], "token id -1")],
)
def test_what_is_no_token_id_is_named_among_many(ids: list[object], said: str) -> None:
    with pytest.raises(Problem, match=said):
        read_inputs(ids, LIMITS, token_ids=True)


# Counting ---


class Counted:
    """A tokenizer, and the characters that it was given."""

    def __init__(self) -> None:
        self.characters = 0
        vocabulary = {"[UNK]": 0, "[CLS]": 1, "one": 2, "two": 3, "##two": 4, "##one": 5, ",": 6}
        self._own = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
        self._own.pre_tokenizer = Whitespace()
        self._own.post_processor = TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])

    def num_special_tokens_to_add(self, pair: bool) -> int:
        return self._own.num_special_tokens_to_add(pair)

    def encode_batch_fast(self, texts: list[str], **named: bool) -> list[object]:
        self.characters += sum(map(len, texts))
        return self._own.encode_batch_fast(texts, **named)

    def whole(self, texts: list[str]) -> int:
        return sum(map(len, self._own.encode_batch_fast(texts)))


@pytest.fixture
def tokenizer(monkeypatch: pytest.MonkeyPatch) -> Counted:
    for name, value in (("_PIECE", 50), ("_WORD", 20), ("_AT_ONCE", 200), ("_PER_CUT", 4)):
        monkeypatch.setattr(counting, name, value)
    return Counted()


@pytest.mark.parametrize(
    "texts",
    [["one two, " * 100], ["one\n" * 40, "two", "x " * 30], ["", " " * 300], ["one"] * 500],
    ids=["long", "lines", "empty", "many"],
)
def test_pieces_have_the_tokens_of_the_whole(tokenizer: Counted, texts: list[str]) -> None:
    assert counting.count_tokens(tokenizer, texts, 10_000) == tokenizer.whole(texts)  # type: ignore[arg-type]


def test_cuts_within_a_word_make_nothing_too_much(tokenizer: Counted) -> None:
    texts = ["onetwo" * 200, "[UNK] is one token, however long" + "x" * 2000]
    assert counting.count_tokens(tokenizer, texts, 10_000) <= tokenizer.whole(texts)  # type: ignore[arg-type]


def test_counting_ends_where_there_are_too_many(tokenizer: Counted) -> None:
    assert 300 < counting.count_tokens(tokenizer, ["one " * 1_000_000], 300) < 400  # type: ignore[arg-type]
    assert tokenizer.characters < 2000
