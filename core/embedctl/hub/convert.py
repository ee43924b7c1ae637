"""`python -m embedctl.hub.convert SRC DST`: pickled weights into one safetensors file.

A process of its own, because it imports torch. SRC is `pytorch_model.bin` or `pytorch_model.bin.index.json`;
DST is written under `DST.part` and renamed when whole. Float32 and float64 tensors become float16, unless a
value would not fit; all other tensors stay as they are.

Unpickling is restricted to tensors (`weights_only=True`): a pickle that asks for anything else is refused
before it can do it, with exit code 3. stdout: one JSON object per step, `{"step", "done", "total"}`; stderr:
one line that says what went wrong. Exit code 28 (ENOSPC): the disk has no room for the result.
"""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedctl.hub.conversion import EXIT_NO_SPACE, EXIT_REFUSED

if TYPE_CHECKING:
    from torch import Tensor

_HALF_MAX = 65504.0


class RefusedError(Exception):
    """The file is no plain checkpoint of tensors."""


class NoSpaceError(Exception):
    """The disk has no room for the result."""


def convert(source: Path, target: Path) -> None:
    """Write the tensors of `source` to `target`.

    Raises:
        RefusedError: `source` holds something else than tensors.
        NoSpaceError: The disk has no room for the result.
    """
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    shards = _shards(source)
    for number, shard in enumerate(shards, 1):
        state = _load(shard)
        for done, (name, tensor) in enumerate(state.items(), 1):
            tensors[name] = _narrowed(tensor)
            if done % 16 == 0 or done == len(state):
                _tell(f"reading {shard.name} ({number}/{len(shards)})", done, len(state))
    size = sum(tensor.nbytes for tensor in tensors.values())
    if shutil.disk_usage(target.parent).free < size:
        raise NoSpaceError(f"{target.name} needs {size / 1e9:.2f} GB")
    _tell(f"writing {target.name}", 0, size)
    part = target.with_name(f"{target.name}.part")
    try:
        # The format entry is what transformers looks for in the header.
        save_file(tensors, part, metadata={"format": "pt"})
        shutil.copymode(shards[0], part)  # save_file lets only the owner read it
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _tell(f"writing {target.name}", size, size)


def _shards(source: Path) -> list[Path]:
    if source.suffix != ".json":
        return [source]
    names = set(json.loads(source.read_text(encoding="utf-8"))["weight_map"].values())
    return [source.with_name(Path(name).name) for name in sorted(names)]


def _load(shard: Path) -> dict[str, Tensor]:
    import torch

    # Only the zip format can be mapped; files from before torch 1.6 are read instead.
    with shard.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    try:
        state: Any = torch.load(shard, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise RefusedError(str(error).splitlines()[0]) from error
    if not isinstance(state, dict):
        raise RefusedError(f"{shard.name} holds a {type(state).__name__}, not a dictionary of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise RefusedError(f"{shard.name}: entry {name!r} is a {type(value).__name__}, not a tensor")
    return state


def _narrowed(tensor: Tensor) -> Tensor:
    """A copy in float16 where that is sound; of its own storage, because safetensors knows no shared one."""
    import torch

    dtype = tensor.dtype
    if dtype in (torch.float32, torch.float64) and tensor.numel() > 0:
        least, most = torch.aminmax(tensor)
        if max(-least.item(), most.item()) <= _HALF_MAX:
            dtype = torch.float16
    return tensor.detach().to(dtype, copy=True).contiguous()


def _tell(step: str, done: int, total: int) -> None:
    print(json.dumps({"step": step, "done": done, "total": total}), flush=True)  # noqa: T201 (its protocol)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m embedctl.hub.convert SRC DST", file=sys.stderr)  # noqa: T201
        return 2
    try:
        convert(Path(arguments[0]), Path(arguments[1]))
    except RefusedError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return EXIT_REFUSED
    except NoSpaceError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return EXIT_NO_SPACE
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
