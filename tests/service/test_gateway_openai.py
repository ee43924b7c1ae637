"""OpenAI's API at the gateway, as a program that speaks plain HTTP sees it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from embedctl.demo.session import demo_model_folder
from embedctl.gateway.inputs import read_inputs
from embedctl.gateway.problems import Problem
from embedctl.settings import GatewaySettings
from tests.support.fake_backend import DIMENSION, vector_of
from tests.support.gateways import Served, served, vectors


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(
        tmp_path_factory.mktemp("openai"),
        max_body_mib=0.05,
        max_texts=8,
        max_tokens=2000,
        model_names=["house"],
    ) as found:
        found.rig.ollama.twist = 0.5
        found.rig.native.failing = {"poison": "the backend computed NaN"}
        found.rig.native.cut = {"long"}
        found.rig.hub.place = demo_model_folder()
        yield found


def test_texts_get_their_vectors_in_order(made: Served) -> None:
    answer = made.embed(["b", "a", "", "b"])
    body = answer.json()
    assert answer.status_code == 200
    assert [item["index"] for item in body["data"]] == [0, 1, 2, 3]
    assert {item["object"] for item in body["data"]} == {"embedding"} and body["object"] == "list"
    np.testing.assert_array_equal(vectors(answer), [vector_of(t) for t in ["b", "a", "", "b"]])
    assert body["model"] == "bge-m3"
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    np.testing.assert_array_equal(vectors(made.embed("a")), [vector_of("a")])


def test_base64_is_the_same_vector_as_little_endian_float32(made: Served) -> None:
    answer = made.embed(["a", "b"], encoding_format="base64").json()
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    np.testing.assert_array_equal(rows, [vector_of("a"), vector_of("b")])


@pytest.mark.parametrize("form", ["float", "base64"])
def test_dimensions_cuts_and_scales_to_unit_norm_again(made: Served, form: str) -> None:
    found = vectors(made.embed(["a", "b"], dimensions=4, encoding_format=form))
    kept = np.stack([vector_of("a"), vector_of("b")])[:, :4]
    np.testing.assert_allclose(found, kept / np.linalg.norm(kept, axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(vectors(made.embed("a", dimensions=DIMENSION)), [vector_of("a")])


def test_token_ids_are_decoded_with_the_models_own_vocabulary(made: Served) -> None:
    tokenizer = Tokenizer.from_file(str(demo_model_folder() / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids for text in ("a cat sits", "interest rates")]
    expected = [vector_of("a cat sits"), vector_of("interest rates")]
    np.testing.assert_array_equal(vectors(made.embed(ids)), expected)
    np.testing.assert_array_equal(vectors(made.embed(ids[0])), expected[:1])
    size = tokenizer.get_vocab_size()
    refused = made.embed([ids[0], [5, size]])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input[1]"
    assert f"the token id {size}" in refused.json()["error"]["message"]
    assert made.embed([size]).json()["error"]["param"] == "input"


def test_token_ids_without_a_vocabulary_on_disk_are_refused(tmp_path: Path) -> None:
    with served(tmp_path) as made:
        refused = made.embed([1, 2, 3])
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_tokenizer")


def test_a_failed_text_is_named_and_no_vector_is_sent(made: Served) -> None:
    refused = made.embed(["a", "poison", "b", "poison"])
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert error["param"] == "input[1]" and error["indices"] == [1, 3] and error["code"] == "text_failed"
    assert "input[1]: the backend computed NaN; input[3]:" in error["message"]
    assert "poison" not in refused.text  # texts are not repeated
    assert made.embed("poison").json()["error"]["param"] == "input"


@pytest.mark.parametrize("form", ["float", "base64"])
def test_partial_results_carry_one_error_per_failed_text(made: Served, form: str) -> None:
    answer = made.embed(["a", "poison", "b"], headers={"X-Embedctl-Partial": "1"}, encoding_format=form)
    good, failed, other = answer.json()["data"]
    assert answer.status_code == 200 and "NaN" not in answer.text.replace("computed NaN", "")
    assert failed["embedding"] is None and failed["index"] == 1
    assert failed["error"]["param"] == "input[1]" and failed["error"]["message"] == "the backend computed NaN"
    assert good["embedding"] and other["embedding"] and "error" not in good


def test_a_vector_that_is_not_finite_never_leaves_as_a_vector(made: Served) -> None:
    made.rig.native.poisoned = {"silent"}
    refused = made.embed(["a", "silent"])
    assert refused.status_code == 400 and refused.json()["error"]["indices"] == [1]


def test_texts_that_were_cut_are_named_in_a_header(made: Served) -> None:
    answer = made.embed(["a", "long", "b", "long"])
    assert answer.status_code == 200 and answer.headers["X-Embedctl-Truncated"] == "1,3"
    assert "X-Embedctl-Truncated" not in made.embed("a").headers


def test_a_long_list_of_cut_texts_is_itself_cut(tmp_path: Path) -> None:
    with served(tmp_path) as made:
        made.rig.native.cut = {"long"}
        shown = made.embed(["long"] * 150).headers["X-Embedctl-Truncated"]
    assert shown.startswith("0,1,2,") and shown.endswith(",99,...")


def test_the_models_name_chooses_the_backend(made: Served) -> None:
    plain, twisted = vector_of("a"), vector_of("a", 0.5)
    for name, vector, backend in [
        ("bge-m3", plain, "native"),
        ("BAAI/bge-m3", plain, "native"),
        ("bge-m3:latest", plain, "native"),
        ("house", plain, "native"),
        ("native:bge-m3", plain, "native"),
        ("ollama:bge-m3", twisted, "ollama"),
        ("ollama:BAAI/BGE-M3", twisted, "ollama"),
    ]:
        answer = made.embed("a", model=name)
        np.testing.assert_array_equal(vectors(answer), [vector])
        assert answer.headers["X-Embedctl-Backend"] == backend and answer.json()["model"] == name
    refused = made.embed("a", model="text-embedding-3-small")
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "model_not_found"


def test_any_model_lets_every_name_through(tmp_path: Path) -> None:
    with served(tmp_path, any_model=True) as made:
        assert made.embed("a", model="text-embedding-3-small").status_code == 200
        assert made.embed("a", model="ollama:whatever").headers["X-Embedctl-Backend"] == "ollama"


def test_the_list_of_models_holds_every_name_that_can_be_asked_for(made: Served) -> None:
    listed = made.client.get("/v1/models").json()
    names = [model["id"] for model in listed["data"]]
    assert names == ["bge-m3", "BAAI/bge-m3", "embedctl", "house", "native:bge-m3", "ollama:bge-m3"]
    for name in names:
        assert made.client.get(f"/v1/models/{name}").json()["id"] == name
        assert made.embed("a", model=name).status_code == 200
    assert made.client.get("/v1/models/gpt-4").status_code == 404


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"input": []}, "input", "empty list"),
        ({"input": [[]]}, "input[0]", "empty list"),
        ({"input": None}, "input", "must be a string"),
        ({"input": 3}, "input", "must be a string"),
        ({"input": {"text": "a"}}, "input", "must be a string"),
        ({"input": ["a", 3]}, "input[1]", "a number"),
        ({"input": ["a", None]}, "input[1]", "null"),
        ({"input": [1, "a"]}, "input", "a string among token ids, at place 1"),
        ({"input": [1, True]}, "input", "a boolean"),
        ({"input": [1.5]}, "input[0]", "a number"),
        ({"input": [-1]}, "input", "token id -1"),
        ({"input": [[1], "a"]}, "input[1]", "a string among lists"),
        ({"input": ["a", "b\0c"]}, "input[1]", "NUL"),
        ({"input": "a\0"}, "input", "NUL"),
        ({"input": ["a"] * 9}, "input", "9 texts and may have 8"),
        ({"input": ["word " * 1500, "word " * 1500]}, "input", "tokens and may have 2000"),
        ({"input": [7] * 2001}, "input", "2001 tokens"),
        ({"input": "a", "dimensions": 0}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": -3}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": 2.5}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": True}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": "4"}, "dimensions", "whole number"),
        ({"input": "a", "dimensions": 17}, "dimensions", "the model's vectors have 16"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "float or base64"),
        ({"input": "a", "encoding_format": ["float"]}, "encoding_format", "float or base64"),
        ({"input": "a", "model": None}, "model", "must be a string"),
        ({"input": "a", "model": ["bge-m3"]}, "model", "must be a string"),
        ({}, "input", "missing"),
    ],
)
def test_what_cannot_be_embedded_is_refused_with_a_reason(
    made: Served, body: dict[str, object], param: str, said: str
) -> None:
    refused = made.client.post("/v1/embeddings", json={"model": "bge-m3", **body})
    error = refused.json()["error"]
    assert refused.status_code == 400
    assert error["param"] == param and said in error["message"]
    assert error["type"] == "invalid_request_error" and error["code"]


def test_too_many_token_ids_are_refused_before_each_is_looked_at() -> None:
    for given in ([1] * 50 + ["x"], [[1] * 50, [1], "x"]):
        with pytest.raises(Problem) as refused:
            read_inputs(given, GatewaySettings(max_tokens=50), token_ids=True)
        assert refused.value.code == "too_many_tokens"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_before_it_is_read_to_its_end(
    made: Served, chunked: bool
) -> None:
    body = json.dumps({"model": "bge-m3", "input": "x" * 200_000}).encode()
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    refused = made.client.post("/v1/embeddings", content=pieces if chunked else body)
    assert refused.status_code == 413 and refused.json()["error"]["code"] == "body_too_large"
    assert refused.headers["connection"] == "close"


def test_unknown_paths_and_methods_get_openais_error(made: Served) -> None:
    for answer, status in [
        (made.client.get("/v1/nothing"), 404),
        (made.client.get("/v1/embeddings"), 405),
        (made.client.put("/v1/models"), 405),
    ]:
        assert answer.status_code == status and answer.json()["error"]["type"] == "invalid_request_error"
