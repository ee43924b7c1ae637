"""Preflight: what the weights will take, before torch is asked."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from embedctl.errors import (
    ModelMissingError,
)
from tests.support.native_stage import Stage


def model_folder(folder: Path, *, pickled: bool = False) -> Path:
    (folder / "config.json").write_text(
        json.dumps({"hidden_size": 100, "intermediate_size": 400, "dtype": "float32"})
    )
    if pickled:
        (folder / "pytorch_model.bin").write_bytes(b"x" * 4_000_000)
    else:
        tensors = {"a": {"dtype": "F32", "shape": [1000, 1000], "data_offsets": [0, 4_000_000]}}
        header = json.dumps({"__metadata__": {}, "i": {"dtype": "I64", "shape": [9]}, **tensors}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    ("settings", "weights", "base"),
    [
        ({"device": "cuda"}, 2_000_000, 768 * 2**20),
        ({"device": "cuda", "dtype": "float32"}, 4_000_000, 768 * 2**20),
        ({"device": "cpu"}, 4_000_000, 600 * 2**20),
    ],
)
def test_preflight_counts_the_weights_at_the_width_they_load_in(
    tmp_path: Path, settings: dict[str, str], weights: int, base: int, pickled: bool
) -> None:
    stage = Stage(model_folder(tmp_path, pickled=pickled), batch_size=2, max_tokens=10, **settings)
    preflight = stage.backend.preflight()
    item = weights // 1_000_000
    assert preflight.expected_bytes == weights + base + 2 * 10 * (8 * 100 + 2 * 400) * item
    assert "weights" in preflight.expected_source
    assert bool(preflight.warnings) == pickled


def test_preflight_counts_what_lies_in_the_folders_of_the_modules(tmp_path: Path) -> None:
    first, second = tmp_path / "0_Transformer", tmp_path / "2_Dense"
    for folder in (first, second, tmp_path / "checkpoint-500"):
        folder.mkdir()
        model_folder(folder, pickled=folder is first)
    modules = [{"path": "0_Transformer"}, {"path": "1_Pooling"}, {"path": "2_Dense"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    preflight = Stage(tmp_path, device="cuda", batch_size=2, max_tokens=10).backend.preflight()
    assert preflight.expected_bytes == 2 * 2_000_000 + 768 * 2**20 + 2 * 10 * (8 * 100 + 2 * 400) * 2
    assert preflight.warnings, "the first module's weights are a pickle"


def test_preflight_without_weights_is_a_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError):
        Stage(tmp_path).backend.preflight()


def test_preflight_of_a_damaged_file_is_unknown_rather_than_wrong(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    preflight = Stage(tmp_path).backend.preflight()
    assert preflight.expected_bytes is None
    assert preflight.warnings
