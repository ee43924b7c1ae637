"""Retrieval sets of the Hub: which files are asked for, and what is said where they are not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedctl.errors import HubError, HubNotFoundError
from embedctl.hub import data_sets


def test_only_what_is_needed_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(data_sets, "snapshot_download", snapshot)
    with pytest.raises(HubNotFoundError) as raised:
        data_sets.fetch_retrieval_set("mteb/msmarco", None, "dev")
    assert raised.value.why is not None
    assert "corpus.jsonl and no queries.jsonl and no qrels/dev.tsv" in raised.value.why
    (tmp_path / "qrels").mkdir()
    for name in ("corpus.jsonl.gz", "queries.jsonl", "qrels/dev.tsv"):
        (tmp_path / name).touch()
    assert data_sets.fetch_retrieval_set("mteb/msmarco", "abc", "dev") == tmp_path
    assert (asked["repo"], asked["repo_type"], asked["revision"]) == ("mteb/msmarco", "dataset", "abc")
    assert asked["allow_patterns"] == [
        "corpus.jsonl", "corpus.jsonl.gz", "queries.jsonl", "queries.jsonl.gz", "qrels/dev.tsv",
    ]  # fmt: skip


def test_a_failure_is_told_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_sets, "snapshot_download", snapshot)
    with pytest.raises(HubError, match="The disk is full"):
        data_sets.fetch_retrieval_set("a/b", None, "test")
