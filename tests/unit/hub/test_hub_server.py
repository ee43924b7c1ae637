"""The demo's Hub, seen by huggingface_hub's own client."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError

from embedctl.demo.hub_server import HubServer, ServedFile
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import REPO, REVISION


def test_hashes_are_those_of_git(served: Path) -> None:
    file = ServedFile("config.json", served / "config.json")
    git = subprocess.run(["git", "hash-object", str(file.source)], capture_output=True, text=True, check=True)
    assert file.blob_id == git.stdout.strip()


def test_the_librarys_own_snapshot_download_works(server: FaultyHub, served: Path, cache: Path) -> None:
    folder = Path(snapshot_download(REPO, revision="main", cache_dir=cache, endpoint=server.endpoint))
    assert folder.name == REVISION
    names = {path.relative_to(served) for path in served.rglob("*") if path.is_file()}
    assert all((folder / name).read_bytes() == (served / name).read_bytes() for name in names)


def test_the_tree_and_the_information_agree(server: FaultyHub) -> None:
    api = HfApi(endpoint=server.endpoint)
    siblings = api.model_info(REPO, files_metadata=True).siblings or []
    tree = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True)}
    assert {sibling.rfilename for sibling in siblings} == set(tree)
    for sibling in siblings:
        entry = tree[sibling.rfilename]
        assert (sibling.size, sibling.blob_id) == (entry.size, entry.blob_id)
        assert (sibling.lfs and sibling.lfs.sha256) == (entry.lfs and entry.lfs.sha256)


def test_a_missing_file_is_the_librarys_own_error(server: FaultyHub, cache: Path) -> None:
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(REPO, "absent.json", cache_dir=cache, endpoint=server.endpoint)


def test_the_speed_limit_paces_the_content(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = HubServer({REPO: served}, bytes_per_second=100_000)
    waits: list[float] = []
    monkeypatch.setattr(server._stopping, "wait", lambda seconds: waits.append(seconds))
    file = ServedFile("model.safetensors", served / "model.safetensors")
    assert sum(len(block) for block in server.blocks(file, 100_000)) == 400_000
    assert waits[0] == pytest.approx(0.66, abs=0.2)
    assert waits[-1] == pytest.approx(4.0, abs=0.2)  # nothing really waited, so all of it is still ahead


def test_the_end_cuts_open_connections(served: Path) -> None:
    with HubServer({REPO: served}) as server:
        endpoint = server.endpoint
        HfApi(endpoint=endpoint).model_info(REPO)
    with pytest.raises(Exception, match=r"(?i)connect"):
        HfApi(endpoint=endpoint).model_info(REPO)
