"""Pickled weights become float16 safetensors, in a process of its own, and nothing is ever executed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedctl.errors import Cancelled, HubConversionError, HubError, HubSpaceError
from embedctl.hub import ModelHub, conversion
from embedctl.hub.cache import Record, RepoCache
from embedctl.hub.checks import RemoteFile, git_blob_hash
from embedctl.hub.conversion import EXIT_NO_SPACE, EXIT_REFUSED, convert_weights
from embedctl.progress import CancelToken, silent
from tests.support.faulty_hub import FaultyHub
from tests.support.model_folders import REPO, REVISION, write_model_folder

CONVERT_ALL = """
import contextlib, io, json, os, pickle, shutil, sys, types, zipfile
from pathlib import Path
import torch
from embedctl.hub.convert import main

folder = Path(sys.argv[1])
torch.manual_seed(0)
tied = torch.randn(6, 4)
state = {
    "embeddings.weight": tied,
    "head.weight": tied,
    "transposed.weight": torch.randn(4, 6).T,
    "expanded.weight": torch.ones(1, 4).expand(5, 4),
    "large.weight": torch.tensor([1.0, 1e6]),
    "empty.weight": torch.zeros(0, 4),
    "bf16.weight": torch.randn(3).to(torch.bfloat16),
    "position_ids": torch.arange(8).expand(1, -1),
}
torch.save(state, folder / "whole.bin")
torch.save(state, folder / "old_format.bin", _use_new_zipfile_serialization=False)
torch.save(["no", "dictionary"], folder / "list.bin")
torch.save({"step": 7, "weight": torch.ones(2)}, folder / "training_state.bin")
parts = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
for name, part in parts.items():
    torch.save({name: torch.ones(2)}, folder / part)
(folder / "shards.json").write_text(json.dumps({"weight_map": parts}))


class Malicious:
    def __reduce__(self):
        return os.system, (f"touch {folder}/executed",)


with zipfile.ZipFile(folder / "malicious.bin", "w") as archive:  # the layout that torch.save writes
    archive.writestr("archive/data.pkl", pickle.dumps({"weight": Malicious()}, protocol=2))
    archive.writestr("archive/version", "3\\n")
    archive.writestr("archive/byteorder", "little")

outcomes = {}
sources = ["whole.bin", "old_format.bin", "shards.json", "list.bin", "training_state.bin", "malicious.bin"]
for name in [*sources, "absent.bin", "no_room"]:
    if name == "no_room":
        shutil.disk_usage = lambda path: types.SimpleNamespace(free=1)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        source = folder / ("whole.bin" if name == "no_room" else name)
        code = main([str(source), str(folder / f"{name}.safetensors")])
    outcomes[name] = {"code": code, "out": out.getvalue().splitlines(), "err": err.getvalue()}
print(json.dumps(outcomes))
"""


class Outcomes:
    """What `python -m embedctl.hub.convert` did with several checkpoints, in one process for all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-c", CONVERT_ALL, str(folder)]
        outcome = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        self._said = json.loads(outcome.stdout)

    def code(self, name: str) -> int:
        return int(self._said[name]["code"])

    def complaint(self, name: str) -> str:
        return str(self._said[name]["err"])

    def steps(self, name: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._said[name]["out"]]

    def written(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return Outcomes(tmp_path_factory.mktemp("checkpoints"))


def header(file: Path) -> dict[str, dict[str, object]]:
    """The header of a safetensors file, read by hand: this process does not load torch."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        entries: dict[str, dict[str, object]] = json.loads(stream.read(length))
    return entries


@pytest.mark.torch
@pytest.mark.parametrize("name", ["whole.bin", "old_format.bin"])
def test_every_tensor_arrives_in_float16_where_that_is_sound(outcomes: Outcomes, name: str) -> None:
    assert outcomes.code(name) == 0
    found = header(outcomes.written(name))
    assert found.pop("__metadata__") == {"format": "pt"}
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in found.items()} == {
        "embeddings.weight": ("F16", [6, 4]),
        "head.weight": ("F16", [6, 4]),
        "transposed.weight": ("F16", [6, 4]),
        "expanded.weight": ("F16", [5, 4]),
        "large.weight": ("F32", [2]),  # 1e6 would become infinite
        "empty.weight": ("F32", [0, 4]),
        "bf16.weight": ("BF16", [3]),
        "position_ids": ("I64", [1, 8]),
    }
    assert outcomes.written(name).stat().st_mode == (outcomes.folder / name).stat().st_mode
    last = outcomes.steps(name)[-1]
    assert last["done"] == last["total"]


@pytest.mark.torch
def test_shards_are_joined(outcomes: Outcomes) -> None:
    assert outcomes.code("shards.json") == 0
    assert set(header(outcomes.written("shards.json"))) == {"__metadata__", "a", "b"}


@pytest.mark.torch
def test_a_malicious_pickle_is_refused_and_not_executed(outcomes: Outcomes) -> None:
    assert outcomes.code("malicious.bin") == EXIT_REFUSED
    assert not (outcomes.folder / "executed").exists()
    assert not outcomes.written("malicious.bin").exists()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "code", "complaint"),
    [
        ("list.bin", EXIT_REFUSED, "a list, not a dictionary of tensors"),
        ("training_state.bin", EXIT_REFUSED, "entry 'step' is a int, not a tensor"),
        ("absent.bin", 1, "No such file"),
        ("no_room", EXIT_NO_SPACE, "GB"),
    ],
)
def test_what_cannot_be_converted_is_told(outcomes: Outcomes, name: str, code: int, complaint: str) -> None:
    assert outcomes.code(name) == code
    assert complaint in outcomes.complaint(name)
    assert not outcomes.written(name).exists()


# The parent's side, with a child that only plays its part


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    child = folder / "child"
    child.write_text(f'#!/bin/sh\nfor target in "$@"; do :; done\n{script}\n')  # the last argument
    child.chmod(0o755)
    monkeypatch.setattr(conversion.sys, "executable", str(child))


@pytest.mark.parametrize(
    ("code", "kind", "what"),
    [
        (EXIT_REFUSED, HubConversionError, "pytorch_model.bin was refused"),
        (EXIT_NO_SPACE, HubSpaceError, "no room for the converted weights"),
        (1, HubConversionError, "could not be converted"),
        (139, HubConversionError, "could not be converted"),
    ],
)
def test_each_exit_code_has_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[HubError], what: str
) -> None:
    play(monkeypatch, tmp_path, f"echo a warning >&2; echo the cause >&2; exit {code}")
    with pytest.raises(kind, match=what) as caught:
        convert_weights(
            tmp_path / "pytorch_model.bin", tmp_path / "o" / "m.safetensors", lambda *_: None, CancelToken()
        )
    assert caught.value.why == "the cause"


def test_a_module_in_the_current_folder_is_kept_out_of_the_childs_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, tmp_path, 'echo "$*" >&2; exit 1')
    with pytest.raises(HubConversionError) as caught:
        convert_weights(tmp_path / "a.bin", tmp_path / "b.safetensors", lambda *_: None, CancelToken())
    assert caught.value.why.startswith("-P -m embedctl.hub.convert")


def test_a_cancelled_conversion_ends_the_child_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = json.dumps({"step": "writing", "done": 1, "total": 2})
    play(monkeypatch, tmp_path, f"touch $target.part; echo '{step}'; exec sleep 100")
    cancel = CancelToken()
    target = tmp_path / "out" / "model.safetensors"
    with pytest.raises(Cancelled):
        convert_weights(tmp_path / "pytorch_model.bin", target, lambda *_: cancel.cancel(), cancel)
    assert list(target.parent.iterdir()) == []


def test_converted_weights_that_are_gone_are_damaged_and_can_be_made_again(tmp_path: Path) -> None:
    cache = RepoCache(tmp_path, REPO)
    cache.snapshot(REVISION).mkdir(parents=True)
    (cache.snapshot(REVISION) / "config.json").write_bytes(b"{}")
    needed = RemoteFile("config.json", 2, None, git_blob_hash(b"{}"))
    cache.write_record(REVISION, Record((needed,), converted={"model.safetensors": "0" * 64}))
    cache.converted(REVISION).mkdir()
    status = ModelHub(REPO, REVISION, cache_dir=tmp_path).verify(silent, CancelToken())
    assert not status.converted
    assert "model.safetensors" in status.detail


@pytest.mark.torch
def test_a_download_converts_once_beside_the_snapshot_and_remove_takes_it_away(
    outcomes: Outcomes, tmp_path: Path
) -> None:
    served = write_model_folder(tmp_path / "served", weights="pytorch_model.bin", size=1)
    (served / "pytorch_model.bin").write_bytes((outcomes.folder / "whole.bin").read_bytes())
    cache = tmp_path / "cache"
    with FaultyHub({REPO: served}, REVISION) as server:
        hub = ModelHub(REPO, REVISION, cache_dir=cache, endpoint=server.endpoint)
        status = hub.download(silent, CancelToken())
    assert status.complete
    assert status.converted
    folder, original = hub.folder(), hub.folder(dtype="float32")
    assert folder is not None
    assert original is not None
    assert sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".safetensors")) == [
        "model.safetensors"
    ]
    assert (folder / "1_Pooling" / "config.json").read_text() == '{"pooling_mode_cls_token": true}'
    # Other programs that read the cache keep the repository's own weights.
    assert (original / "pytorch_model.bin").exists()
    assert not (original / "model.safetensors").exists()

    (folder / "model.safetensors").write_bytes(b"damaged")
    checked = hub.verify(silent, CancelToken())
    assert checked.complete
    assert not checked.converted
    assert "converted model.safetensors was damaged" in checked.detail
    assert hub.folder() == original

    (record,) = [file.stat().st_size for file in cache.rglob("embedctl/*.json")]
    sizes = [file.stat().st_size for file in cache.rglob("*") if not file.is_symlink() and file.is_file()]
    assert hub.remove() == sum(sizes) - record
    assert not list(cache.glob("models--*"))
