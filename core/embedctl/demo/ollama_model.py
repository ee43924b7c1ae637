"""The demo's Ollama model: what a sentence-transformers folder says of itself, and its runner."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from embedctl.demo.ollama_scheduler import Embedded, ServedModel, StartRunner
from embedctl.errors import BackendAnswerError, UsageError
from embedctl.lab.tokens import TokenCounter, token_counter
from embedctl.worker.client import WorkerClient
from embedctl.worker.protocol import WorkerOptions

_POOLING = {"pooling_mode_mean_tokens": 1, "pooling_mode_cls_token": 2, "pooling_mode_lasttoken": 3}
"""llama.cpp's `enum llama_pooling_type` by sentence-transformers' names."""
_MODEL_INFO = {
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
}
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def describe_folder(folder: Path, tag: str) -> ServedModel:
    """Read the folder's own files; loads nothing.

    Raises:
        UsageError: It is no sentence-transformers folder with safetensors weights.
    """
    try:
        config = _json(folder / "config.json")
        pooling = _json(folder / "1_Pooling" / "config.json")
        limits = _json(folder / "sentence_bert_config.json")
        weights = folder / "model.safetensors"
        with weights.open("rb") as stream:
            blob = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(
            f"{folder} is no sentence-transformers folder",
            why=f"{error.filename} cannot be read",
            remedy="give a folder with config.json, model.safetensors and 1_Pooling/config.json",
        ) from error
    files = [folder / "tokenizer.json", folder / "config.json"]
    layers = [(blob, weights.stat().st_size)]
    layers += [
        ("sha256:" + hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size) for file in files
    ]
    manifest = hashlib.sha256("\n".join(digest for digest, _ in layers).encode()).hexdigest()
    info: dict[str, Any] = {name: config[key] for key, name in _MODEL_INFO.items() if key in config}
    info["pooling_type"] = next((number for key, number in _POOLING.items() if pooling.get(key)), 0)
    return ServedModel(
        tag=tag,
        digest=manifest,
        size=sum(size for _, size in layers),
        blob=str(weights),
        dimension=int(config["hidden_size"]),
        context_length=int(limits.get("max_seq_length") or config["max_position_embeddings"]),
        architecture=str(config["model_type"]),
        dtype=_DTYPES.get(str(config.get("torch_dtype", config.get("dtype", "float32"))), "F32"),
        info=info,
        layers=tuple(layers),
    )


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return dict(found)


class WorkerRunner:
    """A runner that is a process of its own: the native backend's worker, on the CPU, one text at a time."""

    def __init__(self, client: WorkerClient, count: TokenCounter | None, limit: int) -> None:
        self._client = client
        self._count = count
        self._limit = limit

    def too_long(self, text: str) -> bool:
        return self._count is not None and self._count([text]) > self._limit

    def embed(self, text: str) -> Embedded:
        answer = self._client.embed([text], batch_size=1, normalize=False)
        if answer.failures:
            raise BackendAnswerError("The demo's runner failed on a text", why=answer.failures[0].what)
        return Embedded(answer.vectors[0].tolist(), answer.tokens, bool(answer.truncated))

    def close(self) -> None:
        self._client.stop()


def runner_starter(folder: Path, log_dir: Path, references: Path | None = None) -> StartRunner:
    """What starts runners over `folder`, with a length limit in tokens.

    Args:
        references: Where a load leaves what makes the next one quick, as llama-server's are.
    """
    count = token_counter(folder)

    def start(limit: int) -> WorkerRunner:
        options = WorkerOptions(
            str(folder), device="cpu", dtype="float32", batch_size=1, max_tokens=limit,
            references=None if references is None else str(references),
        )  # fmt: skip
        client = WorkerClient(options, log_file=log_dir / "demo-ollama-runner.log")
        client.start()
        return WorkerRunner(client, count, limit)

    return start
