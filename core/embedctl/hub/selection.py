"""Which files of a repository dense embedding needs.

A repository often holds the same weights several times (safetensors, pickle, ONNX, OpenVINO, TensorFlow):
fetching it whole doubles or triples the bytes. Names are chosen one by one and never by a pattern such as
`*.json`, which would also match `onnx/*.json`.

Pure functions over names; nothing here touches disk or network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

HEADS = frozenset({"colbert_linear.pt", "sparse_linear.pt"})
"""BGE-M3's multi-vector and sparse heads; dense embedding does without them."""

_TRANSFORMER_CONFIGS = frozenset(
    {
        "config.json",
        "adapter_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "router_config.json",
        # The names that sentence-transformers tries in turn (base/modules/transformer.py, load_config).
        "sentence_bert_config.json",
        "sentence_roberta_config.json",
        "sentence_distilbert_config.json",
        "sentence_camembert_config.json",
        "sentence_albert_config.json",
        "sentence_xlm-roberta_config.json",
        "sentence_xlnet_config.json",
    }
)
_TOKENIZER = frozenset(
    {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
    }
)
_VOCABULARIES = frozenset(
    {
        "bpe.codes",
        "merges.txt",
        "sentencepiece.bpe.model",
        "sentencepiece.model",
        "spiece.model",
        "spm.model",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
    }
)
"""What tokenizer.json already contains; transformers reads these only where there is none."""

_ROOT_CONFIGS = frozenset({"modules.json", "config_sentence_transformers.json"})
_OTHER_RUNTIMES = frozenset({"onnx", "openvino", "coreml", "tf", "flax", "gguf"})
"""Folders with the same weights for runtimes that are not used here."""
_SMALL_SUFFIXES = frozenset({".json", ".txt", ".model", ".py", ".jinja"})

_SAFETENSORS_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_PICKLE_SHARD = re.compile(r"pytorch_model-\d+-of-\d+\.bin")
_SHARD_COUNT = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)(?P<suffix>\.\w+)")


def select_files(
    files: Iterable[str], modules: Sequence[Mapping[str, Any]] | None, *, include_heads: bool = False
) -> tuple[str, ...]:
    """Choose what `SentenceTransformer(folder)` reads.

    Args:
        files: All paths of the repository, relative, with forward slashes.
        modules: The content of its modules.json; None for a plain transformers repository.
        include_heads: Also take BGE-M3's ColBERT and sparse heads.

    Returns:
        Paths in sorted order, weights last, so that a download shows its small files first.
    """
    listed = frozenset(path for path in files if ".." not in PurePosixPath(path).parts)
    chosen = {path for path in listed if path in _ROOT_CONFIGS}
    folders = [""] if modules is None else [_folder(module) for module in modules]
    for folder in folders:
        chosen |= _module_files(listed, folder)
    if modules is not None and any(str(module.get("type", "")).endswith(".Router") for module in modules):
        # A router's parts lie in folders that only its own configuration names.
        chosen |= {path for folder in _top_folders(listed) for path in _module_files(listed, folder)}
    if include_heads:
        chosen |= listed & HEADS
    return tuple(sorted(chosen, key=lambda path: (is_weights(path), path)))


def is_weights(path: str) -> bool:
    """Whether a chosen path is a file of tensors."""
    return path.endswith((".safetensors", ".bin", ".pt"))


def weights_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The chosen files of tensors, heads apart."""
    return tuple(path for path in paths if is_weights(path) and path not in HEADS)


def lacks_shards(paths: Iterable[str]) -> bool:
    """Whether one of the shards that the others' names promise is not among `paths`."""
    promised: dict[tuple[str, str], int] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if match := _SHARD_COUNT.fullmatch(name):
            key = (folder, match["stem"] + match["suffix"])
            promised.setdefault(key, int(match["count"]))
            promised[key] -= 1
    return any(left > 0 for left in promised.values())


def pickled_weights(paths: Iterable[str]) -> dict[str, str]:
    """What has to be converted among chosen paths: source path to the path of its safetensors file.

    A sharded checkpoint is named by its index and becomes one file.
    """
    conversions = {}
    for path in paths:
        pure = PurePosixPath(path)
        if pure.name in ("pytorch_model.bin", "pytorch_model.bin.index.json"):
            conversions[path] = str(pure.with_name("model.safetensors"))
    return conversions


def is_pickled(path: str) -> bool:
    """Whether a chosen path belongs to a pickled checkpoint: a shard, its index, or the single file."""
    name = PurePosixPath(path).name
    return name in ("pytorch_model.bin", "pytorch_model.bin.index.json") or bool(
        _PICKLE_SHARD.fullmatch(name)
    )


def _folder(module: Mapping[str, Any]) -> str:
    path = PurePosixPath(str(module.get("path", "")))
    return "" if path.is_absolute() or ".." in path.parts or str(path) == "." else str(path)


def _top_folders(files: frozenset[str]) -> frozenset[str]:
    return frozenset(path.split("/", 1)[0] for path in files if "/" in path)


def _module_files(files: frozenset[str], folder: str) -> set[str]:
    """What one module reads: in the root only known names, in its own folder everything of use."""
    if folder == "":
        names = frozenset(path for path in files if "/" not in path)
        wanted = names & (_TRANSFORMER_CONFIGS | _TOKENIZER)
        # Code that some repositories bring; it runs only where the loader is told to trust it.
        wanted |= {name for name in names if name.endswith(".py")}
        return set(wanted | _vocabulary(names) | _weights(names))
    if folder.split("/", 1)[0] in _OTHER_RUNTIMES:
        return set()
    chosen: set[str] = set()
    for directory, names in _by_directory(files, folder).items():
        if not _OTHER_RUNTIMES.isdisjoint(PurePosixPath(directory).parts):
            continue
        kept = {name for name in names if PurePosixPath(name).suffix in _SMALL_SUFFIXES}
        kept = {name for name in kept if name not in _VOCABULARIES and not name.endswith(".index.json")}
        chosen |= {f"{directory}/{name}" for name in kept | _vocabulary(names) | _weights(names)}
    return chosen


def _by_directory(files: frozenset[str], folder: str) -> dict[str, frozenset[str]]:
    inside: dict[str, set[str]] = {}
    for path in files:
        if path.startswith(folder + "/"):
            directory, _, name = path.rpartition("/")
            inside.setdefault(directory, set()).add(name)
    return {directory: frozenset(names) for directory, names in inside.items()}


def _vocabulary(names: frozenset[str]) -> frozenset[str]:
    return frozenset() if "tokenizer.json" in names else names & _VOCABULARIES


def _weights(names: frozenset[str]) -> frozenset[str]:
    """One copy of a folder's weights, in the order of preference that transformers has itself."""
    if "model.safetensors" in names:
        return frozenset({"model.safetensors"})
    if "model.safetensors.index.json" in names:
        shards = frozenset(name for name in names if _SAFETENSORS_SHARD.fullmatch(name))
        return shards | {"model.safetensors.index.json"}
    if "pytorch_model.bin" in names:
        return frozenset({"pytorch_model.bin"})
    if "pytorch_model.bin.index.json" in names:
        shards = frozenset(name for name in names if _PICKLE_SHARD.fullmatch(name))
        return shards | {"pytorch_model.bin.index.json"}
    return frozenset()
