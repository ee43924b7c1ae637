"""Getting a packed batch onto the device, through the model, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from embedctl.encoder.attention import Row
from embedctl.encoder.forward import Forward
from embedctl.encoder.memory import release_cached
from embedctl.encoder.packing import Packed, runs

Vectors = NDArray[np.float32]


class Ticket(Protocol):
    """A batch under way."""

    def wait(self) -> None:
        """Wait until the device is done with the batch."""

    def collect(self) -> Vectors:
        """The vectors, shape (texts, dimension), waited for. Call it once; use them before the next `launch`."""


class Runner(Protocol):
    def launch(self, batch: Packed, *, normalize: bool) -> Ticket:
        """Start one batch; may return before the device has finished it.

        Raises:
            RuntimeError: Memory did not suffice (see `memory.is_out_of_memory`); nothing is under way.
        """

    def release_memory(self) -> None:
        """Give back what is cached but unused, before a smaller attempt."""


@dataclass(frozen=True, slots=True)
class _Finished:
    vectors: Vectors

    def wait(self) -> None:
        pass

    def collect(self) -> Vectors:
        return self.vectors


class HostRunner:
    """Runs batches where the caller is: the CPU, and devices without streams of ours.

    Texts of a batch should be sorted by length, so that attention has few runs of equal length.
    """

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward = forward
        self._device = device

    @torch.inference_mode()
    def launch(self, batch: Packed, *, normalize: bool) -> Ticket:
        row = Row(
            ids=torch.from_numpy(batch.ids).to(self._device),
            positions=torch.from_numpy(batch.positions).to(self._device),
            bounds=torch.from_numpy(batch.bounds).to(self._device),
            longest=int(batch.lengths.max()),
            runs=runs(batch.lengths),
        )
        return _Finished(self._forward(row, normalize=normalize).cpu().numpy())

    def release_memory(self) -> None:
        release_cached(self._device)
