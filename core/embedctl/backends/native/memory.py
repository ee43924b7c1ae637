"""What the native backend will hold once loaded, estimated from the model's files without torch."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_ITEM_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2, "float8": 3}
"""A weight of `float8` is there in 16 bits and, in the layers, in 8 as well."""
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
_CUDA_CONTEXT: Final = 768 * 2**20
"""What a process holds on the GPU beside torch's own memory: context, kernels, captured graphs. NVML showed
0.67 to 0.81 GiB of it after a load on an H200 (driver 580)."""
_PYTHON_AND_TORCH: Final = 600 * 2**20
"""Resident set of a worker on a CPU before the weights."""
_TYPICAL_TOKENS: Final = 512
_MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Expected:
    """An estimate and how it was made."""

    bytes: int
    source: str
    pickled: bool
    """Some weights are only there as a pickle."""


def expected_memory(
    folder: Path, *, cuda: bool, dtype: str, batch_size: int, max_tokens: int | None
) -> Expected:
    """The memory that a worker will hold with the model in `folder`.

    Weights lie in the folder itself or in those of its modules. They are counted exactly from the headers of
    the safetensors files (from the size of a pickle), at the width they will be loaded in; the activations
    are those of a full batch of typical texts.

    Raises:
        FileNotFoundError: There are no weights in `folder`.
    """
    places = _places(folder)
    config = next(filter(None, map(_read_config, places)), {})
    plain = dtype == "auto" or (dtype == "float8" and not cuda)
    width = ("float16" if cuda else "float32") if plain else dtype
    item = _ITEM_BYTES[width]
    parameters, pickled = 0, False
    for place in places:
        safetensors = list(place.glob("model*.safetensors"))
        pickles = [] if safetensors else list(place.glob("pytorch_model*.bin"))
        stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
        parameters += sum(map(_parameters, safetensors))
        parameters += sum(file.stat().st_size for file in pickles) // _ITEM_BYTES.get(stored, 4)
        pickled = pickled or bool(pickles)
    if not parameters:
        raise FileNotFoundError(f"no weights in {folder}")
    tokens = batch_size * min(_TYPICAL_TOKENS, max_tokens or _TYPICAL_TOKENS)
    # Per token alive at once in one layer: input, residual, queries, keys, values, output, their sums (about
    # eight vectors of the hidden width) and the feed-forward's two.
    wide = 8 * int(config.get("hidden_size", 1024)) + 2 * int(config.get("intermediate_size", 4096))
    activations = tokens * wide * item
    base = _CUDA_CONTEXT if cuda else _PYTHON_AND_TORCH
    source = (
        f"estimate: weights {parameters * item // _MIB} MiB ({width}) + "
        f"{'CUDA context' if cuda else 'Python and torch'} about {base // _MIB} MiB + "
        f"activations of {tokens} tokens about {math.ceil(activations / _MIB)} MiB"
    )
    return Expected(parameters * item + base + activations, source, pickled)


def nvidia_driver_present() -> bool:
    """Whether an NVIDIA driver is loaded, as far as files tell; the worker asks torch."""
    places = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")
    return any(Path(place).exists() for place in places)


def _places(folder: Path) -> list[Path]:
    """The folder, and those of the modules that it names; of a router, whose parts only it knows, all."""
    modules = _read_json(folder / "modules.json")
    named = [module for module in modules if isinstance(module, dict)] if isinstance(modules, list) else []
    if any(str(module.get("type", "")).endswith(".Router") for module in named):
        return [folder, *(place for place in sorted(folder.iterdir()) if place.is_dir())]
    return list(dict.fromkeys([folder, *(folder / str(module.get("path", "")) for module in named)]))


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    return config if isinstance(config, dict) else {}


def _read_json(file: Path) -> Any:
    """What a JSON file holds; None where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _parameters(file: Path) -> int:
    """The number of floating-point values in a safetensors file, from its header alone.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no safetensors file.
    """
    with file.open("rb") as stream:
        prefix = stream.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{file} is no safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > file.stat().st_size:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(stream.read(length))
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and tensor["dtype"] in _FLOATS
    )
