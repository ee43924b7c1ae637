"""Loading: which device, dtype and length limit; what is refused; and never any code from the folder."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedctl.errors import BackendError, BackendUnavailableError, ModelMissingError
from tests.support.late import late
from tests.support.tiny_models import XLM_R, TinyModel, tiny_model

torch = late("torch")
loading = late("embedctl.encoder.loading")

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cuda:0", "float16"),
        ("auto", "cpu", "float32"),
        ("auto", "mps", "float32"),
        ("bfloat16", "cpu", "bfloat16"),
    ],
)
def test_dtype_auto_is_float16_on_cuda_only(dtype: str, device: str, expected: str) -> None:
    assert loading.resolve_dtype(dtype, torch.device(device)) is getattr(torch, expected)


def test_device_auto_asks_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loading.resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert loading.resolve_device("auto") == torch.device("cuda", 1)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert loading.resolve_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(BackendUnavailableError, match="cuda:1"):
        loading.resolve_device("cuda:1")


def test_the_length_limit_can_be_lowered_but_not_raised() -> None:
    assert loading.load_model(tiny_model(XLM_R), device="cpu", max_tokens=16).max_seq_length == 16
    assert loading.load_model(tiny_model(XLM_R), device="cpu", max_tokens=9999).max_seq_length == 64


def test_a_tokenizer_that_states_too_much_does_not_index_past_the_positions() -> None:
    model = loading.load_model(tiny_model(XLM_R), device="cpu")
    model.max_seq_length = 66  # rows of the table; two are never used by real tokens
    assert loading.token_limit(model) == 64
    model.max_seq_length = 10**30
    assert loading.token_limit(model) == 64


def test_a_pickle_gives_the_same_weights_as_safetensors(tmp_path: Path) -> None:
    pickled = tiny_model(TinyModel(pickled=True))
    expected = loading.load_model(tiny_model(XLM_R), device="cpu").encode(["text"], show_progress_bar=False)
    found = loading.load_model(pickled, device="cpu").encode(["text"], show_progress_bar=False)
    np.testing.assert_allclose(found, expected, atol=1e-6)


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_model(TinyModel(pickled=True)), folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"embeddings": Payload(mark)}, protocol=2))
    with pytest.raises(BackendError, match="cannot be loaded"):
        loading.load_model(folder, device="cpu")
    assert not mark.exists()


def test_a_damaged_safetensors_file_is_an_error_that_points_to_verify(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model(XLM_R), folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(BackendError, match="cannot be loaded") as caught:
        loading.load_model(folder, device="cpu")
    assert "embedctl models verify" in caught.value.remedy


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=str(tmp_path)):
        loading.load_model(tmp_path)
