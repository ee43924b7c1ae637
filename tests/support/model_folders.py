"""Tiny model repositories on disk: the right names, meaningless weights."""

from __future__ import annotations

import json
import random
from pathlib import Path

from embedctl.records import FileState, ModelStatus

REPO = "acme/tiny-embedder"
REVISION = "5617a9f61b028005a4858fdac845db406aefb181"
WEIGHTS = "model.safetensors"


def write_model_folder(folder: Path, *, weights: str = "model.safetensors", size: int = 500_000) -> Path:
    """A sentence-transformers repository whose weights are `size` random bytes, and files nobody needs."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    files = {
        "modules.json": json.dumps(modules),
        "config.json": '{"model_type": "xlm-roberta"}',
        "tokenizer.json": '{"version": "1.0"}',
        "tokenizer_config.json": "{}",
        "sentence_bert_config.json": '{"max_seq_length": 8192}',
        "1_Pooling/config.json": '{"pooling_mode_cls_token": true}',
        "README.md": "# Tiny\n",
        "onnx/config.json": "{}",
    }
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    chance = random.Random(7)
    (folder / weights).write_bytes(chance.randbytes(size))
    (folder / "onnx" / "model.onnx").write_bytes(chance.randbytes(size))
    return folder


NEEDED = frozenset(
    {
        "modules.json",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
        "model.safetensors",
    }
)


def states(status: ModelStatus) -> dict[str, FileState]:
    """Of every file, by its path."""
    return {file.path: file.state for file in status.files}


def blob_of(cache: Path, path: str = WEIGHTS) -> Path:
    """Where the only snapshot in the cache keeps the content of that file."""
    (snapshot,) = (cache / f"models--{REPO.replace('/', '--')}" / "snapshots").iterdir()
    return (snapshot / path).resolve()
