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


class Staged(Protocol):
    """A batch ready to be launched."""

    def launch(self) -> Ticket:
        """Start it; may return before the device has finished it. Call it once.

        Raises:
            RuntimeError: Memory did not suffice (see `memory.is_out_of_memory`); nothing is under way.
        """


class Ticket(Protocol):
    """A batch under way."""

    def pending(self) -> bool:
        """Whether the device still works on it, and will be done without anybody's help."""

    def wait(self) -> None:
        """Wait until the device is done with the batch.

        Raises:
            RuntimeError: The batch failed; there is nothing to collect. Perhaps memory did not suffice.
        """

    def collect(self) -> Vectors:
        """The vectors, shape (texts, dimension), waited for.

        Call it once, and use the array before the next batch is staged.
        """


class Runner(Protocol):
    def stage(self, batch: Packed, *, normalize: bool) -> Staged:
        """Do for a batch whatever can be done while another one runs.

        Raises:
            RuntimeError: Memory did not suffice.
        """

    def release_memory(self) -> None:
        """Give back what is cached but unused, before a smaller attempt."""


@dataclass(slots=True)
class _HostBatch:
    """Computed in `wait`, not at launch: what a batch before it brought is delivered first."""

    forward: Forward
    row: Row
    normalize: bool
    vectors: Vectors | None = None

    def launch(self) -> Ticket:
        return self

    @torch.inference_mode()
    def wait(self) -> None:
        if self.vectors is None:
            self.vectors = self.forward(self.row, normalize=self.normalize).cpu().numpy()

    def pending(self) -> bool:
        return False

    def collect(self) -> Vectors:
        self.wait()
        assert self.vectors is not None
        return self.vectors


class HostRunner:
    """Runs batches where the caller is: the CPU, and devices without streams of ours.

    Texts of a batch should be sorted by length, so that attention has few runs of equal length.
    """

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self._forward = forward
        self._device = device

    def stage(self, batch: Packed, *, normalize: bool) -> Staged:
        """See `Runner.stage`."""
        row = Row(
            ids=torch.from_numpy(batch.ids).to(self._device),
            positions=torch.from_numpy(batch.positions).to(self._device),
            bounds=torch.from_numpy(batch.bounds).to(self._device),
            longest=int(batch.lengths.max()),
            runs=runs(batch.lengths),
        )
        return _HostBatch(self._forward, row, normalize)

    def release_memory(self) -> None:
        release_cached(self._device)
