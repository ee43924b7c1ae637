"""Running packed batches on a CUDA device: pinned staging, asynchronous copies, captured graphs.

A batch is one copy in (every index it needs lies in one int32 vector), the model, and one copy out, all on
one stream. Nothing waits for the device but a ticket's `wait` and `collect`.

Launching the model kernel by kernel costs the CPU some 7 ms a batch. So it is captured as a CUDA graph for a
few sizes when the model is loaded, and a batch replays the graph of the next larger size: nothing is compiled
or captured while requests wait. Rows beyond a batch's own belong to no text: nothing looks at them. All
graphs work in the same memory, that of the largest, since they run one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embedctl.encoder.attention import AttentionKind, Row
from embedctl.encoder.forward import Forward
from embedctl.encoder.memory import is_out_of_memory, release_cached
from embedctl.encoder.packing import Ints, Packed, Run, attention_tiles, most_tiles, runs
from embedctl.encoder.runner import Ticket, Vectors

MOST_TEXTS = 2048
"""Texts per batch at most: it bounds the pinned memory for answers."""
_TOKEN_SIZES = (
    16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144,
)  # fmt: skip
"""Below the budget. A graph takes some 15 ms to capture and half a megabyte of the driver's memory."""
_TEXT_SIZES = (64, 512, MOST_TEXTS)
"""Of the graphs for a whole budget: the last layer's products are as high as there are texts."""
_LONG = 4096
"""With a text of so many tokens, attention is fastest in tiles of 128 rows, else of 64."""
_SLOTS = 4
"""Staging buffers kept: for the batch on the device, the one before it that is being delivered, a bulk batch
and a small one put together."""


@dataclass(frozen=True, slots=True)
class _Size:
    """A size that the model is captured for."""

    tokens: int
    texts: int
    block: int
    """Rows of an attention tile."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything lies in the staging vector of a batch of this size."""

    tokens: int
    texts: int
    tiles: int
    block: int

    @property
    def size(self) -> int:
        return 4 * self.tokens + self.texts + 2 + 4 * self.tiles

    def fill(self, vector: Ints, batch: Packed, tiles: Ints, *, normalize: bool) -> None:
        """Write `batch`, which may be smaller; what is left over belongs to no text."""
        size, used = self.tokens, batch.tokens
        lengths = batch.lengths
        if used < size or len(tiles) < self.tiles:
            vector[: self.size] = 0
        vector[:used] = batch.ids
        vector[size : size + used] = batch.positions
        vector[2 * size : 2 * size + used] = np.repeat(batch.bounds[:-1], lengths)
        vector[3 * size : 3 * size + used] = np.repeat(batch.bounds[1:], lengths)
        bounds = vector[4 * size : 4 * size + self.texts + 1]
        bounds[: batch.texts + 1] = batch.bounds
        bounds[batch.texts + 1 :] = used
        first_tile = 4 * size + self.texts + 2
        vector[first_tile - 1] = normalize
        vector[first_tile : first_tile + tiles.size] = tiles.ravel()

    def row(self, vector: Tensor, longest: int, runs: list[Run]) -> Row:
        """The views of `vector` that the model reads."""
        size = self.tokens
        bounds_end = 4 * size + self.texts + 1
        return Row(
            ids=vector[:size],
            positions=vector[size : 2 * size],
            starts=vector[2 * size : 3 * size],
            ends=vector[3 * size : 4 * size],
            bounds=vector[4 * size : bounds_end],
            tiles=vector[bounds_end + 1 : self.size].view(-1, 4),
            longest=longest,
            runs=runs,
            block=self.block,
        )

    def normalize(self, vector: Tensor) -> Tensor:
        """1 where unit vectors are wanted, else 0."""
        place = 4 * self.tokens + self.texts + 1
        return vector[place : place + 1]


@dataclass(frozen=True, slots=True)
class _Slot:
    """Pinned memory for one batch; taken when it is staged, given back when its vectors are collected."""

    pinned: Tensor
    numbers: Ints
    out: Tensor
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    layout: _Layout
    vector: Tensor
    """What a batch is copied to before a replay."""
    answer: Tensor


class CudaRunner:
    """Runs batches on one CUDA device, on a stream of its own.

    Args:
        forward: The model.
        kind: The attention inside `forward`; decides which index tables a batch needs.
        dimension: Of the vectors.
        budget: Most tokens of a batch of several texts.
        capacity: Most tokens of any batch.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        *,
        kind: AttentionKind,
        dimension: int,
        budget: int,
        capacity: int,
    ) -> None:
        self._forward = forward
        self._device = device
        self._kind = kind
        self._dimension = dimension
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._budget = budget
        self._capacity = capacity
        self._free: list[_Slot] = []
        self._graphs: dict[_Size, _Graph] = {}

    def stage(self, batch: Packed, *, normalize: bool) -> _Staged:
        """See `Runner.stage`."""
        graph = self._graph(batch)
        if graph is None:
            block = self._block(batch)
            tiles = self._tiles(batch, block)
            layout = _Layout(batch.tokens, batch.texts, len(tiles), block)
        else:
            layout = graph.layout
            tiles = self._tiles(batch, layout.block)
        slot = self._take_slot(layout.size)
        layout.fill(slot.numbers, batch, tiles, normalize=normalize)
        return _Staged(self, slot, layout, graph, batch, normalize)

    def release_memory(self) -> None:
        """See `Runner.release_memory`."""
        release_cached(self._device)

    def capture(self) -> None:
        """Capture the model for every size, as far as memory goes. To be called before the first batch."""
        pool = torch.cuda.graph_pool_handle()
        sizes = [_Size(n, min(n // 2, _TEXT_SIZES[1]), 64) for n in _TOKEN_SIZES if n < self._budget]
        sizes += [_Size(self._budget, texts, 64) for texts in _TEXT_SIZES]
        if self._budget >= _LONG and self._kind == "tiled":
            sizes.append(_Size(self._budget, _TEXT_SIZES[0], 128))
        try:
            for size in reversed(sizes):  # the largest first: the others fit into its memory
                self._graphs[size] = self._capture(size, pool)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        self._graphs = dict(reversed(self._graphs.items()))
        release_cached(self._device)

    @property
    def graphs(self) -> int:
        """How many sizes are captured."""
        return len(self._graphs)

    def _graph(self, batch: Packed) -> _Graph | None:
        """The smallest one that holds `batch`."""
        block = self._block(batch)
        for size, graph in self._graphs.items():
            if size.tokens >= batch.tokens and size.texts >= batch.texts and size.block >= block:
                return graph
        return None

    def _block(self, batch: Packed) -> int:
        return 128 if self._kind == "tiled" and batch.lengths.max() >= _LONG else 64

    def _tiles(self, batch: Packed, block: int) -> Ints:
        if self._kind != "tiled":
            return np.zeros((0, 4), np.int32)
        return attention_tiles(batch.lengths.tolist(), block)

    def _take_slot(self, size: int) -> _Slot:
        if self._free:
            slot = self._free.pop()
            if slot.pinned.shape[0] >= size:
                return slot
        room = max(size, 4 * self._capacity + MOST_TEXTS + 4 * most_tiles(self._capacity, 64))
        pinned = torch.empty(room, dtype=torch.int32, pin_memory=True)
        out = torch.empty((MOST_TEXTS, self._dimension), dtype=torch.float32, pin_memory=True)
        return _Slot(pinned, pinned.numpy(), out, out.numpy())

    def _give_back(self, slot: _Slot) -> None:
        if len(self._free) < _SLOTS:
            self._free.append(slot)

    def _launch(self, batch: _Staged) -> Ticket:
        slot, layout, graph = batch.slot, batch.layout, batch.graph
        pinned, packed = slot.pinned[: layout.size], batch.batch
        try:
            with torch.cuda.stream(self._stream):
                if graph is None:
                    with torch.inference_mode():
                        vector = pinned.to(self._device, non_blocking=True)
                        row = layout.row(vector, int(packed.lengths.max()), self._runs(packed))
                        answer = self._forward(row, normalize=batch.normalize)
                else:
                    graph.vector.copy_(pinned, non_blocking=True)
                    graph.graph.replay()
                    answer = graph.answer[: packed.texts]
                slot.out[: packed.texts].copy_(answer, non_blocking=True)
                done = self._stream.record_event()
                return _Ticket(self, slot, done, packed.texts)
        except BaseException:
            self._give_back(slot)
            raise

    def _runs(self, batch: Packed) -> list[Run]:
        return runs(batch.lengths) if self._kind == "grouped" else []

    def _capture(self, size: _Size, pool: Any) -> _Graph:
        tiles = most_tiles(size.tokens, size.block) if self._kind == "tiled" else 0
        layout = _Layout(size.tokens, size.texts, tiles, size.block)
        sample = Packed(
            np.zeros(size.tokens, np.int32),
            np.zeros(size.tokens, np.int32),
            np.array([0, size.tokens], np.int32),
        )
        numbers = np.zeros(layout.size, np.int32)
        layout.fill(numbers, sample, self._tiles(sample, size.block), normalize=True)
        vector = torch.from_numpy(numbers).to(self._device)
        row, normalize = layout.row(vector, size.tokens, []), layout.normalize(vector)
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            # Compiles kernels, which cannot be done in a capture.
            self._forward(row, normalize=normalize)
            self._stream.synchronize()
            # Not `torch.cuda.graph`: it collects garbage and empties the cache on every capture.
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                answer = self._forward(row, normalize=normalize)
            finally:
                graph.capture_end()
        return _Graph(graph, layout, vector, answer)


@dataclass(frozen=True, slots=True)
class _Staged:
    runner: CudaRunner
    slot: _Slot
    layout: _Layout
    graph: _Graph | None
    batch: Packed
    normalize: bool

    def launch(self) -> Ticket:
        return self.runner._launch(self)


@dataclass(frozen=True, slots=True)
class _Ticket:
    runner: CudaRunner
    slot: _Slot
    done: torch.cuda.Event
    texts: int

    def pending(self) -> bool:
        return not self.done.query()  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self.done.synchronize()

    def collect(self) -> Vectors:
        self.done.synchronize()
        self.runner._give_back(self.slot)
        return self.slot.vectors[: self.texts]
