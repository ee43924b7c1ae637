"""Ollama's API at the gateway, as a program that speaks plain HTTP sees it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.support.fake_backend import DIMENSION, vector_of
from tests.support.gateways import Served, served


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("ollama"), max_texts=8) as found:
        found.rig.ollama.twist = 0.5
        found.rig.native.failing = {"poison": "the backend computed NaN"}
        found.rig.native.cut = {"long"}
        yield found


def rows(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(answer.json()["embeddings"], dtype=np.float32)


def test_embed_gives_vectors_in_order_with_what_clients_read(made: Served) -> None:
    answer = made.ollama("embed", input=["b", "a"], keep_alive="5m", options={"num_ctx": 8192}, truncate=True)
    np.testing.assert_array_equal(rows(answer), [vector_of("b"), vector_of("a")])
    body = answer.json()
    assert body["model"] == "bge-m3" and body["prompt_eval_count"] == 2 and body["total_duration"] > 0
    assert answer.headers["X-Embedctl-Backend"] == "native"
    np.testing.assert_array_equal(rows(made.ollama("embed", input="a", keep_alive=-1)), [vector_of("a")])


def test_nothing_to_embed_is_an_empty_list_as_ollama_answers_a_preload(made: Served) -> None:
    before = made.rig.native.embedded
    for body in ({}, {"input": ""}, {"input": []}, {"input": None}):
        assert made.ollama("embed", **body).json() == {"model": "bge-m3", "embeddings": []}
    assert made.ollama("embeddings", prompt="").json() == {"embedding": []}
    assert made.rig.native.embedded == before


def test_dimensions_are_cut_and_scaled_and_zero_means_all(made: Served) -> None:
    kept = vector_of("a")[:4]
    np.testing.assert_allclose(
        rows(made.ollama("embed", input="a", dimensions=4)), [kept / np.linalg.norm(kept)], rtol=1e-6
    )
    assert rows(made.ollama("embed", input="a", dimensions=0)).shape == (1, DIMENSION)
    refused = made.ollama("embed", input="a", dimensions=DIMENSION + 1)
    assert refused.status_code == 400 and "have 16" in refused.json()["error"]


def test_the_older_api_gives_one_list_of_numbers(made: Served) -> None:
    answer = made.ollama("embeddings", prompt="a", options={}, keep_alive=300)
    np.testing.assert_array_equal(np.asarray(answer.json()["embedding"], np.float32), vector_of("a"))


def test_truncate_false_refuses_a_text_that_would_be_cut(made: Served) -> None:
    refused = made.ollama("embed", input=["a", "long"], truncate=False)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("the input length exceeds the context length (input[1]")
    answer = made.ollama("embed", input=["a", "long"])
    assert answer.status_code == 200 and answer.headers["X-Embedctl-Truncated"] == "1"


def test_a_failed_text_is_named(made: Served) -> None:
    refused = made.ollama("embed", input=["a", "poison"])
    assert refused.status_code == 400 and "input[1]: the backend computed NaN" in refused.json()["error"]
    assert made.ollama("embeddings", prompt="poison").status_code == 400


def test_names_choose_the_backend_and_unknown_ones_get_ollamas_answer(made: Served) -> None:
    asked = made.ollama("embed", model="ollama:bge-m3", input="a")
    np.testing.assert_array_equal(rows(asked), [vector_of("a", 0.5)])
    assert asked.json()["model"] == "ollama:bge-m3"
    for path in ("embed", "embeddings", "show"):
        refused = made.ollama(path, model="llama3", input="a")
        assert refused.status_code == 404
        assert refused.json()["error"].startswith('model "llama3" not found, try pulling it first')


def test_lists_name_the_model_and_what_is_loaded(made: Served) -> None:
    tags = made.client.get("/api/tags").json()["models"]
    assert [model["name"] for model in tags] == ["bge-m3:latest", "native:bge-m3", "ollama:bge-m3"]
    for model in tags:
        assert made.ollama("embed", model=model["name"], input="a").status_code == 200
    running = made.client.get("/api/ps").json()["models"]
    assert [model["name"] for model in running] == ["bge-m3:latest", "ollama:bge-m3"]
    assert all("size_vram" not in model for model in running)  # nobody said: not 0
    assert made.client.get("/api/version").json()["version"].startswith("0.33.0+embedctl.")
    shown = made.ollama("show").json()
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["embedding.embedding_length"] == DIMENSION


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("embed", {"input": 3}, "must be a string"),
        ("embed", {"input": ["a", 3]}, "input[1]"),
        ("embed", {"input": [1, 2]}, "input[0] must be a string"),
        ("embed", {"input": ["a"] * 9}, "9 texts"),
        ("embed", {"input": "a\0"}, "NUL"),
        ("embed", {"input": "a", "truncate": "no"}, "truncate must be"),
        ("embed", {"input": "a", "options": [1]}, "options must be"),
        ("embed", {"input": "a", "keep_alive": {}}, "keep_alive must be"),
        ("embed", {"input": "a", "dimensions": -1}, "dimensions must be"),
        ("embed", {"input": "a", "dimensions": False}, "dimensions must be"),
        ("embed", {"input": "", "dimensions": True}, "dimensions must be"),
        ("embeddings", {"prompt": ["a"]}, "prompt must be"),
        ("embeddings", {"prompt": "a\0"}, "prompt holds a NUL"),
        ("show", {"model": 3}, "model must be"),
    ],
)
def test_malformed_requests_are_refused_in_ollamas_words(
    made: Served, path: str, body: dict[str, object], said: str
) -> None:
    refused = made.ollama(path, **body)
    assert refused.status_code == 400 and said in refused.json()["error"]
    assert set(refused.json()) == {"error"}
