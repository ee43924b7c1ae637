"""Retrieval sets on the Hub: data sets in BEIR's layout, as plain files.

Two homes of the same sets are known, which differ in where they say what answers what: `mteb/…` holds
`qrels/dev.tsv` or `qrels/dev.jsonl` beside the texts, and `BeIR/…` has a second repository `BeIR/…-qrels`
with `dev.tsv`. The texts are `corpus.jsonl` and `queries.jsonl` in both, compressed in BeIR's.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from embedctl.errors import HubNotFoundError
from embedctl.hub.failures import Origin, explain

_PARTS = ("corpus.jsonl", "queries.jsonl")


def fetch_retrieval_set(
    repo: str,
    revision: str | None,
    split: str,
    *,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
) -> tuple[Path, Path]:
    """Fetch what is missing of a data set, and nothing that is not needed.

    Returns:
        The folder with its texts, and the file that says which document answers which query; both in the
        Hub's cache.

    Raises:
        HubNotFoundError: There is no such data set, or it lacks one of these files (some hold the same as
            Parquet, which is not read).
        HubError: It could not be fetched.
    """
    inside = (f"qrels/{split}.tsv", f"qrels/{split}.jsonl")
    wanted = [name for part in _PARTS for name in (part, f"{part}.gz")] + list(inside)
    try:
        folder = Path(
            snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=wanted, cache_dir=cache_dir,
                endpoint=endpoint,
            )
        )  # fmt: skip
        judged = next((folder / name for name in inside if (folder / name).is_file()), None)
        if judged is None:
            judged = _from_second_repository(repo, split, cache_dir, endpoint)
    except Exception as error:
        raise explain(error, Origin(repo, revision or "main", endpoint or constants.ENDPOINT)) from error
    missing = [part for part in _PARTS if not any((folder / name).is_file() for name in (part, f"{part}.gz"))]
    if judged is None:
        missing.append(inside[0])
    if judged is None or missing:
        raise HubNotFoundError(
            f"{repo} is no retrieval set in BEIR's layout",
            why=f"it has no {' and no '.join(missing)} at {revision or 'its newest revision'}",
            remedy="name another split (--split dev), or a revision that has them: owner/name@commit",
        )
    return folder, judged


def _from_second_repository(
    repo: str, split: str, cache_dir: Path | None, endpoint: str | None
) -> Path | None:
    """`BeIR/msmarco-qrels` for `BeIR/msmarco`; None where there is none. Other failures are raised."""
    try:
        found = hf_hub_download(
            f"{repo}-qrels", f"{split}.tsv", repo_type="dataset", cache_dir=cache_dir, endpoint=endpoint
        )
    except (RepositoryNotFoundError, EntryNotFoundError):
        return None
    return Path(found)
