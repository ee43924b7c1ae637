"""What the Hub says about a repository, asked through huggingface_hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_url, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from embedctl.errors import HubDamagedError, HubError, HubNotFoundError, HubServerError
from embedctl.hub import selection
from embedctl.hub.checks import Listing, RemoteFile, git_blob_hash
from embedctl.hub.failures import Origin, explain

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""What may name a commit or a blob; also the only thing of the Hub's that becomes a file name as it is."""

_TIMEOUT = 15.0
"""Seconds without an answer after which the Hub counts as unreachable."""


def default_endpoint() -> str:
    """The Hub's address (`HF_ENDPOINT`)."""
    return constants.ENDPOINT


def look_up(origin: Origin, *, include_heads: bool = False) -> Listing:
    """Ask the Hub which files dense embedding needs, with their sizes and hashes. Writes nothing.

    Raises:
        HubError: The Hub could not be asked, or the repository holds nothing that could be loaded.
    """
    try:
        info = HfApi(endpoint=origin.endpoint).model_info(
            origin.repo, revision=origin.revision, files_metadata=True, timeout=_TIMEOUT
        )
        commit = info.sha or ""
        if not _HASH.fullmatch(commit):
            raise ValueError("no commit in the answer")
        files = {
            sibling.rfilename: RemoteFile(
                path=sibling.rfilename,
                size=sibling.lfs.size if sibling.lfs else int(sibling.size or 0),
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
                blob_id=sibling.blob_id,
            )
            for sibling in info.siblings or ()
        }
        _require_hashes(origin, files.values())
        modules = _modules(origin, commit, files["modules.json"]) if "modules.json" in files else None
    except HubError:
        raise
    except Exception as error:
        raise explain(error, origin) from error
    chosen = selection.select_files(files, modules, include_heads=include_heads)
    if not selection.weights_of(chosen):
        raise HubNotFoundError(
            f"{origin.repo} has no weights that sentence-transformers can load",
            why="it holds neither model.safetensors nor pytorch_model.bin",
            remedy="choose a sentence-transformers repository, not one for another runtime (GGUF, ONNX)",
        )
    return Listing(commit, tuple(files[path] for path in chosen))


def file_url(origin: Origin, commit: str, path: str) -> str:
    return hf_hub_url(origin.repo, path, revision=commit, endpoint=origin.endpoint)


def request_headers() -> dict[str, str]:
    """Headers of every file request: the token, if there is one, and the honest length of the content."""
    headers: dict[str, str] = build_hf_headers(library_name="embedctl")
    headers["Accept-Encoding"] = "identity"
    return headers


def delete_revision(cache: Path, repo: str, commit: str) -> int:
    """Let huggingface_hub delete one revision; blobs that other revisions show stay.

    Returns:
        Bytes freed; 0 if the cache does not hold it.
    """
    try:
        info = scan_cache_dir(cache)
    except CacheNotFound:
        return 0
    # The same commit may also lie in a mirror or a copy of the repository, which stays.
    here = frozenset(r for r in info.repos if r.repo_id == repo and r.repo_type == "model")
    if not any(revision.commit_hash == commit for found in here for revision in found.revisions):
        return 0
    strategy = replace(info, repos=here).delete_revisions(commit)
    strategy.execute()
    return strategy.expected_freed_size


def _require_hashes(origin: Origin, files: Iterable[RemoteFile]) -> None:
    for file in files:
        if not _HASH.fullmatch(file.etag):
            raise HubServerError(
                f"{origin.shown} does not state the hashes of {origin.repo}",
                why=f"none for {file.path}, so that a download could not be checked",
                remedy="use the Hub itself, or a complete mirror (HF_ENDPOINT)",
            )


def _modules(origin: Origin, commit: str, file: RemoteFile) -> Sequence[Mapping[str, Any]]:
    response = get_session().get(
        file_url(origin, commit, file.path), headers=request_headers(), timeout=_TIMEOUT
    )
    hf_raise_for_status(response)
    if file.sha256 is None and git_blob_hash(response.content) != file.blob_id:
        raise HubDamagedError(
            f"{origin.repo}: modules.json arrived damaged", remedy="try again; if it stays, check the network"
        )
    modules = json.loads(response.content)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise HubNotFoundError(
            f"{origin.repo} has a modules.json that is no list of modules",
            remedy="choose another repository or revision",
        )
    return modules
