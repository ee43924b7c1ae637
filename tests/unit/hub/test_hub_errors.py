"""Each way in which the Hub can fail has its own error, with a cause and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedctl.demo.hub_server import ServedFile
from embedctl.errors import (
    HubDamagedError,
    HubError,
    HubGatedError,
    HubNotFoundError,
    HubOfflineError,
    HubRateLimitError,
    HubServerError,
    HubTokenError,
)
from embedctl.hub import ModelHub
from embedctl.progress import CancelToken, silent
from tests.support.faulty_hub import FaultyHub, Refusal
from tests.support.model_folders import REPO, REVISION

TOKEN = "hf_secretsecretsecretsecret"


def refused(hub: ModelHub) -> HubError:
    with pytest.raises(HubError) as caught:
        hub.status()
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("refusal", "kind", "what"),
    [
        (Refusal("/api/", 403, "GatedRepo", "Access is restricted"), HubGatedError, "terms to be accepted"),
        (Refusal("/api/", 401, "GatedRepo", "Access is restricted"), HubGatedError, "terms to be accepted"),
        (Refusal("/api/", 404, "RepoNotFound", "Not found"), HubNotFoundError, "There is no repository"),
        (Refusal("/api/", 401, "RepoNotFound", "Not found"), HubNotFoundError, "There is no repository"),
        (Refusal("/api/", 404, "RevisionNotFound", "Invalid rev"), HubNotFoundError, "has no revision"),
        (Refusal("/api/", 403, "", "Forbidden for you"), HubTokenError, "does not let this account read"),
        (Refusal("/api/", 429), HubRateLimitError, "limits requests"),
        (Refusal("/api/", 500), HubServerError, r"\(500\)"),
        (Refusal("/api/", 503), HubServerError, r"\(503\)"),
        (Refusal("/api/", 418, "", "Teapot"), HubError, r"\(418\)"),
    ],
)
def test_a_status_has_its_own_error(
    hub: ModelHub, server: FaultyHub, refusal: Refusal, kind: type[HubError], what: str
) -> None:
    server.refusals = [refusal]
    error = refused(hub)
    assert type(error) is kind
    import re

    assert re.search(what, error.what)


def test_gated_says_where_to_accept_and_whether_a_token_was_sent(
    hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refusals = [Refusal("/api/", 403, "GatedRepo", "Access is restricted")]
    error = refused(hub)
    assert f"{server.endpoint}/{REPO}" in error.remedy
    assert error.why == "no token was sent"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "without access" in refused(hub).why


def test_a_refused_token_is_told_without_telling_the_token(
    hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    message = f"Invalid credentials in Authorization header: {TOKEN}"
    server.refusals = [Refusal("/api/", 401, "", message)]
    error = refused(hub)
    assert type(error) is HubTokenError
    assert "Invalid credentials" in error.why
    assert TOKEN not in str(error)


@pytest.mark.parametrize(
    "headers", [(("Retry-After", "42"),), (("RateLimit", '"api";r=0;t=42'),)], ids=["standard", "the Hub's"]
)
def test_too_many_requests_says_how_long_to_wait(
    hub: ModelHub, server: FaultyHub, headers: tuple[tuple[str, str], ...]
) -> None:
    server.refusals = [Refusal("/api/", 429, headers=headers)]
    assert "42 s" in refused(hub).remedy


def test_a_file_that_is_gone(hub: ModelHub, server: FaultyHub) -> None:
    server.refusals = [Refusal("tokenizer.json", 404, "EntryNotFound", "Entry not found")]
    with pytest.raises(HubNotFoundError, match=r"has no file 'tokenizer\.json'"):
        hub.download(silent, CancelToken())


def test_a_server_error_in_the_middle_is_tried_again(hub: ModelHub, server: FaultyHub) -> None:
    server.refusals = [Refusal("model.safetensors", 503, times=3)]
    assert hub.download(silent, CancelToken()).complete


def test_a_server_error_that_stays_is_given_up_after_some_tries(hub: ModelHub, server: FaultyHub) -> None:
    server.refusals = [Refusal("model.safetensors", 503)]
    with pytest.raises(HubServerError, match=r"model\.safetensors \(503\)"):
        hub.download(silent, CancelToken())
    assert len(server.requests_for("model.safetensors")) == 5


def test_too_many_requests_in_the_middle_is_not_hammered(hub: ModelHub, server: FaultyHub) -> None:
    server.refusals = [Refusal("model.safetensors", 429, headers=(("Retry-After", "7"),))]
    with pytest.raises(HubRateLimitError):
        hub.download(silent, CancelToken())
    assert len(server.requests_for("model.safetensors")) == 1


def test_offline_mode_is_named(hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library reads HF_HUB_OFFLINE when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    error = refused(hub)
    assert type(error) is HubOfflineError
    assert "HF_HUB_OFFLINE" in error.why
    assert server.seen == []


def test_no_route_to_the_hub(cache: Path) -> None:
    hub = ModelHub(REPO, REVISION, cache_dir=cache, endpoint="http://127.0.0.1:9")
    error = refused(hub)
    assert type(error) is HubOfflineError
    assert "http://127.0.0.1:9 cannot be reached" in error.what


def test_an_answer_that_is_no_hubs_answer(
    hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda request: request.send_json("please log in"))
    assert type(refused(hub)) is HubServerError


def test_a_name_that_no_repository_can_have(server: FaultyHub, cache: Path) -> None:
    hub = ModelHub("no such//name", "main", cache_dir=cache, endpoint=server.endpoint)
    assert "is no repository name" in refused(hub).what


def test_a_repository_without_weights_that_can_be_loaded(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model-Q4.gguf").write_bytes(b"GGUF")
    with FaultyHub({"acme/gguf": folder}) as server:
        hub = ModelHub("acme/gguf", "main", cache_dir=cache, endpoint=server.endpoint)
        error = refused(hub)
    assert type(error) is HubNotFoundError
    assert "no weights" in error.what


def test_a_module_list_that_arrives_damaged_is_not_believed(hub: ModelHub, server: FaultyHub) -> None:
    server.damage["modules.json"] = 1
    assert type(refused(hub)) is HubDamagedError


def test_a_mirror_that_states_no_hashes_is_not_trusted(
    hub: ModelHub, server: FaultyHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServedFile, "sibling", lambda file: {"rfilename": file.path, "size": file.size})
    assert "does not state the hashes" in refused(hub).what


def test_a_password_in_a_mirrors_address_is_not_told(cache: Path) -> None:
    hub = ModelHub(REPO, REVISION, cache_dir=cache, endpoint="http://ada:s3cret@127.0.0.1:9")
    error = refused(hub)
    assert "http://127.0.0.1:9 cannot be reached" in error.what
    assert "s3cret" not in str(error)
