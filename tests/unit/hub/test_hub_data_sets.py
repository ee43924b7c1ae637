"""Retrieval sets of the Hub, fetched by its own client from a local one in the layouts of MTEB and BEIR."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedctl.demo.hub_server import HubRequestHandler
from embedctl.errors import HubError, HubNotFoundError
from embedctl.hub import data_sets
from embedctl.lab.quality_sets import SearchSet, search_sets
from tests.support.faulty_hub import FaultyHub

_COMMIT = "c5a29a104738b98a9e76336939199e264163d4a0"
_CORPUS = [
    {"_id": f"{number}", "title": "", "text": f"passage {number}", "metadata": {}} for number in range(30)
]
_QUERIES = [
    {"_id": f"{number}", "text": f"question {number}", "metadata": {}} for number in range(1000, 1020)
]
_JUDGED = "query-id\tcorpus-id\tscore\n1000\t7\t1\n1001\t8\t1\n1001\t9\t1\n"


class DataSetHub(FaultyHub):
    """Serves its repositories as data sets, and has no models."""

    def answer(self, request: HubRequestHandler) -> None:
        path = request.path
        if path.startswith("/api/models/") or not path.startswith(("/api/", "/datasets/")):
            return request.fail(404, "RepoNotFound", "Repository not found")
        request.path = path.replace("/api/datasets/", "/api/models/").removeprefix("/datasets")
        return super().answer(request)


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode() + b"\n"


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[DataSetHub]:
    """MS MARCO as both homes keep it, a few lines of it."""
    plain = {"corpus.jsonl": _lines(_CORPUS), "queries.jsonl": _lines(_QUERIES), "README.md": b"a card"}
    packed = {f"{name}.gz": gzip.compress(plain[name]) for name in ("corpus.jsonl", "queries.jsonl")}
    judged = [
        {"query-id": "1000", "corpus-id": "7", "score": 1.0},
        {"query-id": "1001", "corpus-id": "8", "score": 1.0},
        {"query-id": "1001", "corpus-id": "9", "score": 1.0},
    ]
    tabs = {f"qrels/{split}.tsv": _JUDGED.encode() for split in ("train", "dev", "test")}
    repos = {
        "mteb/msmarco": _write(tmp_path / "mteb", plain | tabs),
        "mteb/later": _write(tmp_path / "later", plain | {"qrels/dev.jsonl": _lines(judged)}),
        "BeIR/msmarco": _write(tmp_path / "beir", packed | {"msmarco.py": b"raise SystemExit"}),
        "BeIR/msmarco-qrels": _write(tmp_path / "beir-qrels", {"dev.tsv": _JUDGED.encode()}),
        "a/texts": _write(tmp_path / "texts", plain),
    }
    with DataSetHub(repos, _COMMIT) as running:
        yield running


def _set(hub: DataSetHub, cache: Path, name: str, split: str = "dev") -> SearchSet:
    [found] = search_sets(
        [f"hub:{name}"],
        split=split,
        fetch=lambda repo, revision, split: data_sets.fetch_retrieval_set(
            repo, revision, split, cache_dir=cache, endpoint=hub.endpoint
        ),
    )
    return found


@pytest.mark.parametrize("name", ["mteb/msmarco", f"mteb/msmarco@{_COMMIT}", "mteb/later", "BeIR/msmarco"])
def test_msmarco_is_read_in_each_of_its_homes(hub: DataSetHub, tmp_path: Path, name: str) -> None:
    found = _set(hub, tmp_path / "cache", name)
    assert found.name == f"{name.partition('@')[0]} dev"
    assert found.queries == {"1000": "question 1000", "1001": "question 1001"}
    assert found.relevant == {"1000": {"7": 1}, "1001": {"8": 1, "9": 1}}
    assert (len(found.documents), found.documents["7"]) == (30, "passage 7")
    fetched = {
        seen.path.rpartition("/")[2] for seen in hub.seen if seen.method == "GET" and "resolve" in seen.path
    }
    assert fetched.isdisjoint({"README.md", "msmarco.py", "train.tsv", "test.tsv"}), "only what is needed"


def test_a_split_that_is_nowhere_is_said_with_what_to_do(hub: DataSetHub, tmp_path: Path) -> None:
    for name in ("mteb/later", "BeIR/msmarco", "a/texts"):
        with pytest.raises(HubNotFoundError, match="no retrieval set in BEIR's layout") as raised:
            _set(hub, tmp_path / "cache", name, "test")
        assert raised.value.why is not None
        assert raised.value.why.startswith("it has no qrels/test.tsv at ")
    with pytest.raises(HubNotFoundError):
        _set(hub, tmp_path / "cache", "mteb/absent")


def test_a_failure_is_told_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data_sets, "snapshot_download", snapshot)
    with pytest.raises(HubError, match="The disk is full"):
        data_sets.fetch_retrieval_set("a/b", None, "test")
