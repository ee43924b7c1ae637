"""Retrieval sets on the Hub: data sets in BEIR's layout, as plain files."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, snapshot_download

from embedctl.errors import HubNotFoundError
from embedctl.hub.failures import Origin, explain

_PARTS = ("corpus.jsonl", "queries.jsonl")


def fetch_retrieval_set(repo: str, revision: str | None, split: str) -> Path:
    """The folder of a data set in the Hub's cache; fetches what is missing, and nothing that is not needed.

    Raises:
        HubNotFoundError: There is no such data set, or it has no corpus.jsonl, queries.jsonl and
            qrels/`split`.tsv (some hold the same as Parquet, which is not read).
        HubError: It could not be fetched.
    """
    qrels = f"qrels/{split}.tsv"
    wanted = [name for part in _PARTS for name in (part, f"{part}.gz")] + [qrels]
    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=wanted))
    except Exception as error:
        raise explain(error, Origin(repo, revision or "main", constants.ENDPOINT)) from error
    missing = [part for part in _PARTS if not any((folder / name).is_file() for name in (part, f"{part}.gz"))]
    if not (folder / qrels).is_file():
        missing.append(qrels)
    if missing:
        raise HubNotFoundError(
            f"{repo} is no retrieval set in BEIR's layout",
            why=f"it has no {' and no '.join(missing)} at {revision or 'its newest revision'}",
            remedy="name another split (--split dev), or a revision that has them: owner/name@commit",
        )
    return folder
