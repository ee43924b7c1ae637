"""The model's own pieces of texts, and what its length limit cuts off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from embedctl.errors import InvalidTextError
from embedctl.lab.pieces import ModelTokenizer, model_tokenizer

VOCABULARY = {
    word: number
    for number, word in enumerate(["<s>", "</s>", "<unk>", "query", ":", "how", "long", "is", "it"])
}


def made(folder: Path, **files: dict[str, Any]) -> ModelTokenizer:
    """A tokenizer of nine words with a token at each end; `files` by name without the ending."""
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.enable_truncation(4)  # as a folder may have it saved
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in ({"tokenizer_config": {"unk_token": {"content": "<unk>"}}} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    found = model_tokenizer(folder)
    assert found is not None
    return found


def test_pieces_know_their_characters_and_what_the_model_adds(tmp_path: Path) -> None:
    (text,) = made(tmp_path)(["how 🙂 long"], None)
    assert [(p.text, p.start, p.end, p.added, p.unknown) for p in text.pieces] == [
        ("<s>", 0, 0, True, False),
        ("how", 0, 3, False, False),
        ("<unk>", 4, 5, False, True),
        ("long", 6, 10, False, False),
        ("</s>", 0, 0, True, False),
    ]
    assert (text.read, text.lost, text.cut) == (5, None, None)


def test_added_pieces_take_room_from_the_text(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    (fits,) = tokenizer(["how long"], 4)
    assert (fits.read, fits.cut) == (4, None)
    (cut,) = tokenizer(["how long is it"], 4)
    assert (len(cut.pieces), cut.read, cut.lost, cut.cut) == (6, 4, (3, 5), (8, 14))
    (nothing,) = tokenizer(["how long"], 2)
    assert (nothing.read, nothing.lost, nothing.cut) == (2, (1, 3), (0, 8))


def test_a_model_that_keeps_the_end_loses_the_beginning(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, tokenizer_config={"truncation_side": "left"})
    (cut,) = tokenizer(["how long is it"], 4)
    assert (cut.read, cut.lost, cut.cut) == (4, (1, 3), (0, 9))
    (nothing,) = tokenizer(["how long"], 2)
    assert (nothing.read, nothing.lost, nothing.cut) == (2, (1, 3), (0, 8))


def test_the_models_prompt_counts_and_is_told_from_the_text(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (text,) = made(tmp_path, config_sentence_transformers=prompts)(["how long is"], 6)
    assert [(p.text, p.start, p.end) for p in text.pieces if not p.added] == [
        ("how", 0, 3),
        ("long", 4, 8),
        ("is", 9, 11),
    ]
    assert [p.text for p in text.pieces if p.added] == ["<s>", "query", ":", "</s>"]
    assert (text.read, text.lost, text.cut) == (6, (5, 6), (8, 11))


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (
            {"sentence_bert_config": {"max_seq_length": 256}, "tokenizer_config": {"model_max_length": 512}},
            256,
        ),
        ({"tokenizer_config": {"model_max_length": 512}}, 512),
        ({"tokenizer_config": {"model_max_length": 10**30}}, None),
        ({"sentence_bert_config": {"max_seq_length": None}}, None),
    ],
    ids=["sentence-transformers", "tokenizer", "unbounded", "silent"],
)
def test_the_models_files_state_its_limit(tmp_path: Path, files: dict[str, Any], limit: int | None) -> None:
    assert made(tmp_path, **files).limit == limit


def test_what_is_not_unicode_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidTextError, match=r"Text 1 .*U\+D800 at character 2") as caught:
        made(tmp_path)(["how", "a \ud800"], 4)
    assert caught.value.index == 1


def test_a_folder_without_a_fast_tokenizer_has_none(tmp_path: Path) -> None:
    assert model_tokenizer(tmp_path) is None
