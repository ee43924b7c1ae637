"""The clients that applications use get right vectors, unchanged: only their base URL names the gateway.

The snippets are those of the README, word for word.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest
from tokenizers import Tokenizer

from embedctl.demo.session import demo_model_folder
from tests.support.fake_backend import vector_of
from tests.support.gateways import Served, served
from tests.support.late import late

openai = late("openai")

KEY = "a-key-for-the-clients-test"
TEXTS = ["first text", "second text"]
MANY = [f"text {number}" for number in range(70)]
SNIPPETS = Path(__file__).with_name("snippets")
README_URL = "http://127.0.0.1:11435"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("clients")) as found:
        found.rig.native.failing = {"poison": "the backend computed NaN"}
        found.rig.ollama.twist = 0.5
        yield found


@pytest.fixture
def openai_client(made: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{made.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def same(found: Sequence[Sequence[float]], texts: Sequence[str], twist: float = 0.0) -> None:
    np.testing.assert_array_equal(np.asarray(found, np.float32), [vector_of(text, twist) for text in texts])


# The official clients ---


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_openais_client(openai_client: openai.OpenAI, form: Any) -> None:
    wanted = {} if form is None else {"encoding_format": form}
    answer = openai_client.embeddings.create(model="bge-m3", input=MANY, user="me", **wanted)
    found = [item.embedding for item in answer.data]
    if form == "base64":  # asked for by the caller, the client leaves it as it is
        assert all(isinstance(vector, str) for vector in found)
        return
    same(found, MANY)
    assert answer.usage.prompt_tokens == len(MANY) and answer.model == "bge-m3"
    short = openai_client.embeddings.create(model="bge-m3", input="first text", dimensions=4, **wanted)
    assert np.linalg.norm(short.data[0].embedding) == pytest.approx(1, abs=1e-6)


def test_openais_client_sees_models_and_errors_as_its_own(openai_client: openai.OpenAI) -> None:
    names = [model.id for model in openai_client.models.list()]
    assert "bge-m3" in names and openai_client.models.retrieve("ollama:bge-m3").id == "ollama:bge-m3"
    with pytest.raises(openai.NotFoundError) as missing:
        openai_client.embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as failed:
        openai_client.embeddings.create(model="bge-m3", input=["a", "poison"])
    assert failed.value.param == "input[1]"
    header = {"X-Embedctl-Fingerprint": "0" * 12}
    with pytest.raises(openai.ConflictError):
        openai_client.embeddings.create(model="bge-m3", input="a", extra_headers=header)


def test_openais_asynchronous_client(made: Served) -> None:
    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key="none") as client:
            answers = await asyncio.gather(
                *(client.embeddings.create(model="bge-m3", input=text) for text in MANY[:20])
            )
        return [answer.data[0].embedding for answer in answers]

    same(asyncio.run(ask()), MANY[:20])


def test_ollamas_client(made: Served) -> None:
    client = ollama.Client(host=made.url)
    answer = client.embed("bge-m3", MANY, keep_alive="10m", options={"num_ctx": 8192})
    same(answer.embeddings, MANY)
    assert answer.prompt_eval_count == len(MANY)
    same(client.embed("ollama:bge-m3", TEXTS).embeddings, TEXTS, twist=0.5)
    same([client.embeddings("bge-m3", "first text").embedding], ["first text"])
    assert len(client.embed("bge-m3", "first text", dimensions=4).embeddings[0]) == 4
    assert next(model.model for model in client.list().models) == "bge-m3:latest"
    assert {model.model for model in client.ps().models} == {"bge-m3:latest", "ollama:bge-m3"}
    assert client.show("bge-m3").capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError, match="not found, try pulling it first") as missing:
        client.embed("llama3", "a")
    assert missing.value.status_code == 404


def test_clients_with_a_key(tmp_path: Path) -> None:
    with served(tmp_path, keys=(KEY,)) as made:
        good = openai.OpenAI(base_url=f"{made.url}/v1", api_key=KEY, max_retries=0)
        same([good.embeddings.create(model="bge-m3", input="a").data[0].embedding], ["a"])
        with pytest.raises(openai.AuthenticationError):
            good.with_options(api_key="a-wrong-key-of-that-length").models.list()
        keyed = ollama.Client(made.url, headers={"Authorization": f"Bearer {KEY}"})
        same(keyed.embed("bge-m3", TEXTS).embeddings, TEXTS)
        with pytest.raises(ollama.ResponseError, match="API key"):
            ollama.Client(made.url).embed("bge-m3", TEXTS)


# The frameworks ---


def langchain_openai(url: str) -> tuple[Any, ...]:
    from langchain_openai import OpenAIEmbeddings

    made = OpenAIEmbeddings(
        model="bge-m3", base_url=f"{url}/v1", api_key="none", check_embedding_ctx_length=False, chunk_size=32
    )
    return made.embed_documents, made.embed_query, made.aembed_documents, made.aembed_query


def langchain_ollama(url: str) -> tuple[Any, ...]:
    from langchain_ollama import OllamaEmbeddings

    made = OllamaEmbeddings(model="bge-m3", base_url=url, validate_model_on_init=True, num_ctx=8192)
    return made.embed_documents, made.embed_query, made.aembed_documents, made.aembed_query


def llama_index_openai(url: str) -> tuple[Any, ...]:
    from llama_index.embeddings.openai import OpenAIEmbedding

    made = OpenAIEmbedding(model_name="bge-m3", api_base=f"{url}/v1", api_key="none", embed_batch_size=32)
    return _llama_index(made)


def llama_index_openai_like(url: str) -> tuple[Any, ...]:
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    return _llama_index(OpenAILikeEmbedding(model_name="bge-m3", api_base=f"{url}/v1", api_key="none"))


def llama_index_ollama(url: str) -> tuple[Any, ...]:
    from llama_index.embeddings.ollama import OllamaEmbedding

    return _llama_index(OllamaEmbedding(model_name="bge-m3", base_url=url))


def _llama_index(made: Any) -> tuple[Any, ...]:
    return (
        made.get_text_embedding_batch,
        made.get_query_embedding,
        made.aget_text_embedding_batch,
        made.aget_query_embedding,
    )


@pytest.mark.parametrize(
    "framework",
    [langchain_openai, langchain_ollama, llama_index_openai, llama_index_openai_like, llama_index_ollama],
)
def test_frameworks_embed_documents_and_queries(
    made: Served, framework: Callable[[str], tuple[Any, ...]]
) -> None:
    documents, query, documents_later, query_later = framework(made.url)
    same(documents(MANY), MANY)
    same([query("a question")], ["a question"])

    async def later() -> tuple[Any, Any]:
        return await documents_later(TEXTS), await query_later("a question")

    found, asked = asyncio.run(later())
    same(found, TEXTS)
    same([asked], ["a question"])


@pytest.mark.parametrize("vocabulary", [True, False])
def test_usage_has_numbers_also_where_the_backend_counts_no_tokens(
    made: Served, openai_client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, vocabulary: bool
) -> None:
    monkeypatch.setattr(made.rig.native, "counts_tokens", False)
    tokenizer = Tokenizer.from_file(str(demo_model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    monkeypatch.setattr("embedctl.gateway.inputs.TokenIds._load", lambda _: tokenizer if vocabulary else None)
    usage = openai_client.embeddings.create(model="bge-m3", input=["a cat sits", "first text"]).usage
    found = ollama.Client(host=made.url).embed("bge-m3", ["a cat sits", "first text"])
    assert usage.to_dict() == (
        {"prompt_tokens": 9, "total_tokens": 9}
        if vocabulary
        else {"prompt_tokens": 6, "total_tokens": 6, "estimated": True}
    )
    assert found.prompt_eval_count == (9 if vocabulary else None)
    for framework in (langchain_openai, llama_index_openai, llama_index_openai_like):
        same(framework(made.url)[0](TEXTS), TEXTS)


# The README's snippets ---


@pytest.mark.parametrize("name", sorted(file.name for file in SNIPPETS.glob("*.py")))
def test_a_snippet_of_the_readme_works_as_it_stands(made: Served, name: str) -> None:
    code = (SNIPPETS / name).read_text()
    assert README_URL in code
    scope: dict[str, Any] = {}
    exec(compile(code.replace(README_URL, made.url), name, "exec"), scope)
    same(scope["vectors"], TEXTS)


def test_the_curl_snippet_works_as_it_stands(made: Served) -> None:
    code = (SNIPPETS / "curl.sh").read_text()
    done = subprocess.run(
        ["bash", "-c", code.replace(README_URL, made.url)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    same([item["embedding"] for item in json.loads(done.stdout)["data"]], TEXTS)


def test_the_pinned_snippet_says_so_when_another_backend_answers(
    made: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (SNIPPETS / "pinned_client.py").read_text().replace(README_URL, made.url)
    scope: dict[str, Any] = {}
    exec(compile(code.replace('model="bge-m3"', 'model="ollama:bge-m3"'), "pinned", "exec"), scope)
    assert "vectors" not in scope
    assert "must not be mixed in one index" in capsys.readouterr().out


def test_the_readme_shows_these_snippets_word_for_word() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    missing = [file.name for file in sorted(SNIPPETS.iterdir()) if file.read_text().rstrip() not in readme]
    assert missing == []
