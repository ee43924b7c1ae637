"""What a complete load leaves is read back only where all that it depends on is still the same."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedctl.encoder import ahead, kept
from embedctl.encoder.kept import Basis, Kept, NotKept, basis_of, file_for, keep, recall
from embedctl.encoder.spec import DenseSpec, ModelSpec, from_json, to_json

SPEC = ModelSpec(
    depth=2,
    heads=4,
    width=32,
    eps=1e-12,
    first_position=2,
    skipped_id=1,
    max_tokens=64,
    truncation_side="right",
    pooling="mean",
    steps=(DenseSpec(2, "Tanh", True, "none"), None),
    normalizes=True,
    dimension=24,
    truncate_dim=16,
    prompt="query: ",
)
KEPT = Kept(
    made="2026-11-22",
    spec=SPEC,
    places={
        "model.safetensors": {"embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight"}
    },
    tokenizer='{"name": "é"}'.encode(),
    probe_ids=(np.array([0, 2], np.int32), np.array([0, 7, 8, 2], np.int32)),
    probe_vectors=np.ones((2, 16), np.float32),
    reference=np.full((8, 16), 0.25, np.float32),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


def basis(folder: Path, max_tokens: int | None = None, **changed: str) -> Basis:
    given = {"device": "cpu a CPU", "dtype": "float32", "texts": "texts", **changed}
    return basis_of(folder, max_tokens=max_tokens, **given)  # type: ignore[arg-type]


def why_not(file: Path, basis: Basis) -> str:
    with pytest.raises(NotKept) as caught:
        recall(file, basis)
    return caught.value.why


def test_a_spec_survives_json() -> None:
    assert from_json(to_json(SPEC)) == SPEC
    with pytest.raises(TypeError):
        from_json({**to_json(SPEC), "unknown": 1})


def test_what_was_kept_comes_back(tmp_path: Path, folder: Path) -> None:
    now = basis(folder)
    file = file_for(tmp_path / "references", now)
    assert why_not(file, now) == "", "that nothing was kept yet is nothing to be told"
    keep(file, now, KEPT)
    found = recall(file, now)
    arrays = {"probe_ids": (), "probe_vectors": KEPT.reference, "reference": KEPT.reference}
    assert replace(found, **arrays) == replace(KEPT, **arrays)  # type: ignore[arg-type]
    assert [ids.tolist() for ids in found.probe_ids] == [[0, 2], [0, 7, 8, 2]]
    np.testing.assert_array_equal(found.probe_vectors, KEPT.probe_vectors)
    np.testing.assert_array_equal(found.reference, KEPT.reference)
    assert list(file.parent.iterdir()) == [file], "nothing half-written stays behind"


@pytest.mark.parametrize("size", [0, 1, 100, 1000])
def test_a_damaged_file_is_not_read(tmp_path: Path, folder: Path, size: int) -> None:
    now = basis(folder)
    file = file_for(tmp_path, now)
    keep(file, now, KEPT)
    os.truncate(file, size)
    assert "damaged" in why_not(file, now)


def test_a_flipped_bit_is_seen(tmp_path: Path, folder: Path) -> None:
    now = basis(folder)
    file = file_for(tmp_path, now)
    keep(file, now, KEPT)
    content = bytearray(file.read_bytes())
    place = content.index(KEPT.reference.tobytes()) + 9
    content[place] ^= 1
    file.write_bytes(content)
    assert "damaged" in why_not(file, now)


def test_other_versions_texts_and_files_are_named(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = basis(folder)
    file = file_for(tmp_path, now)
    keep(file, {**now, "transformers": "5.0.0"}, KEPT)
    assert f"transformers changed since the reference was kept (5.0.0, now {now['transformers']})" in why_not(
        file, now
    )
    keep(file, now, KEPT)
    assert "the known texts changed" in why_not(file, basis(folder, texts="others"))
    monkeypatch.setattr(kept, "_FORMAT", "0")
    assert "form" in why_not(file, basis(folder))
    monkeypatch.undo()
    (folder / "config.json").write_text("{}")
    assert "the model's files changed" in why_not(file, basis(folder))


def test_each_dtype_limit_and_device_has_a_file_of_its_own(tmp_path: Path, folder: Path) -> None:
    bases = [
        basis(folder),
        basis(folder, dtype="float16"),
        basis(folder, device="cuda:0 GB10"),
        basis(folder, max_tokens=16),
    ]
    assert len({file_for(tmp_path, each) for each in bases}) == len(bases)


def test_a_plain_file_is_known_by_size_and_time(folder: Path) -> None:
    weights = folder / "model.safetensors"
    before = basis(folder)["files"]
    assert basis(folder)["files"] == before
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").touch()
    assert basis(folder)["files"] == before
    os.utime(weights, ns=(1, 1))
    assert basis(folder)["files"] != before


def test_a_file_in_the_hubs_cache_is_known_by_its_hash(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name in ("hash-1", "hash-2"):
        (blobs / name).write_bytes(b"same size")
        os.utime(blobs / name, ns=(1, 1))
    link = snapshot / "model.safetensors"
    link.symlink_to(Path("../../blobs/hash-1"))
    before = basis(snapshot)["files"]
    os.utime(blobs / "hash-1", ns=(2, 2))
    assert basis(snapshot)["files"] == before
    link.unlink()
    link.symlink_to(Path("../../blobs/hash-2"))
    assert basis(snapshot)["files"] != before


def test_the_oldest_of_too_many_go(tmp_path: Path, folder: Path) -> None:
    files = []
    for number in range(10):
        now = basis(folder, max_tokens=number)
        files.append(file_for(tmp_path / "references", now))
        keep(files[-1], now, KEPT)
        os.utime(files[-1], ns=(number, number))
    assert set((tmp_path / "references").iterdir()) == set(files[-8:])


def test_the_context_is_made_on_the_named_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def __init__(self, name: str) -> None:
            assert name == "libcuda.so.1"

        def cuInit(self, flags: int) -> int:
            calls.append("init")
            return result

        def cuDeviceGet(self, device: object, index: int) -> int:
            calls.append(index)
            return 0

        def cuDevicePrimaryCtxRetain(self, context: object, device: object) -> int:
            calls.append("context")
            return 0

    monkeypatch.setattr(ahead.ctypes, "CDLL", Driver)
    calls: list[object] = []
    result = 0
    ahead._make_context(1)
    assert calls == ["init", 1, "context"]
    calls, result = [], 100  # no device
    ahead._make_context(0)
    assert calls == ["init"]


def test_without_a_driver_nothing_happens(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def no_driver(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ahead.ctypes, "CDLL", no_driver)
    ahead._make_context(0)
    ahead._read(folder)
    ahead._read(folder / "gone")
