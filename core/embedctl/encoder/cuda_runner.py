"""Running packed batches on a CUDA device: pinned staging, asynchronous copies, captured graphs.

A batch is one copy in (every index it needs lies in one int32 vector), the model, and one copy out on a second
stream, so that the next batch computes meanwhile. Nothing waits for the device but `collect`.

Batches of few tokens are bound by launches, not by arithmetic, so they replay a CUDA graph captured for the
next larger bucket of tokens and texts; both copies are part of the graph.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedctl.encoder.attention import AttentionKind, Row
from embedctl.encoder.forward import Forward
from embedctl.encoder.memory import release_cached
from embedctl.encoder.packing import Ints, Packed, attention_tiles, most_tiles, runs
from embedctl.encoder.runner import Ticket, Vectors

TOKEN_BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TEXT_BUCKETS = (1, 4, 16, 64)
MOST_TEXTS = 2048
"""Texts per batch at most: it bounds the pinned memory for answers."""
_SLOTS = 3


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where everything lies in the staging vector of a batch of this size."""

    tokens: int
    texts: int
    tiles: int
    block: int

    @property
    def size(self) -> int:
        return 4 * self.tokens + self.texts + 1 + 4 * self.tiles

    def fill(self, vector: Ints, batch: Packed, tiles: Ints) -> None:
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
        first_tile = 4 * size + self.texts + 1
        vector[first_tile : first_tile + tiles.size] = tiles.ravel()

    def row(self, vector: Tensor, longest: int, batch: Packed | None) -> Row:
        """The views of `vector` that the model reads."""
        size = self.tokens
        bounds_end = 4 * size + self.texts + 1
        return Row(
            ids=vector[:size],
            positions=vector[size : 2 * size],
            starts=vector[2 * size : 3 * size],
            ends=vector[3 * size : 4 * size],
            bounds=vector[4 * size : bounds_end],
            tiles=vector[bounds_end : self.size].view(-1, 4),
            longest=longest,
            runs=[] if batch is None else runs(batch.lengths),
            block=self.block,
        )


@dataclass(slots=True)
class _Slot:
    """Staging for one batch; taken at launch, given back when its vectors are collected."""

    pinned: Tensor
    numbers: Ints
    device: Tensor
    out: Tensor
    vectors: Vectors


@dataclass(slots=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    layout: _Layout
    numbers: Ints
    vectors: Vectors
    keep: tuple[Tensor, ...]
    busy: bool = False


class CudaRunner:
    """Runs batches on one CUDA device, on a stream of its own.

    Args:
        forward: The model.
        kind: The attention inside `forward`; decides which index tables a batch needs.
        dimension: Of the vectors.
        capacity: Most tokens of one batch.
        graphs: Capture graphs for small batches.
        graph_bytes: Device memory that captured graphs may take.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        *,
        kind: AttentionKind,
        dimension: int,
        capacity: int,
        graphs: bool,
        graph_bytes: int = 256 * 2**20,
    ) -> None:
        self._forward = forward
        self._device = device
        self._kind = kind
        self._dimension = dimension
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._free: list[_Slot] = []
        self._use_graphs = graphs
        self._graphs: dict[tuple[int, int, bool], _Graph] = {}
        self._graph_bytes_left = graph_bytes
        self._pool = torch.cuda.graph_pool_handle() if graphs else None

    def launch(self, batch: Packed, *, normalize: bool) -> Ticket:
        """See `Runner.launch`."""
        with torch.inference_mode(), torch.cuda.device(self._device):
            graph = self._graph_for(batch, normalize) if self._use_graphs else None
            if graph is not None:
                return self._replay(graph, batch)
            return self._eager(batch, normalize)

    def capture(self, tokens: int, texts: int = 1, *, normalize: bool = True) -> bool:
        """Capture the graph that serves batches of this size, if there is memory for it."""
        key = _bucket(tokens, texts)
        if key is None or not self._use_graphs:
            return False
        with torch.inference_mode(), torch.cuda.device(self._device):
            return self._captured((*key, normalize)) is not None

    def release_memory(self) -> None:
        """See `Runner.release_memory`."""
        release_cached(self._device)

    @property
    def graphs(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    # Eager batches ------------------------------------------------------------------------------------

    def _eager(self, batch: Packed, normalize: bool) -> Ticket:
        tiles = self._tiles(batch, 64)
        layout = _Layout(batch.tokens, batch.texts, len(tiles), 64)
        slot = self._take_slot(layout.size)
        try:
            layout.fill(slot.numbers, batch, tiles)
            with torch.cuda.stream(self._stream):
                vector = slot.device[: layout.size]
                vector.copy_(slot.pinned[: layout.size], non_blocking=True)
                answer = self._forward(
                    layout.row(vector, int(batch.lengths.max()), batch), normalize=normalize
                )
                computed = self._stream.record_event()
            with torch.cuda.stream(self._copies):
                self._copies.wait_event(computed)
                slot.out[: batch.texts].copy_(answer, non_blocking=True)
                copied = self._copies.record_event()
        except BaseException:
            self._free.append(slot)
            raise
        return _EagerTicket(self, slot, copied, answer, batch.texts)

    def _take_slot(self, size: int) -> _Slot:
        if self._free:
            slot = self._free.pop()
            if slot.pinned.shape[0] >= size:
                return slot
        room = max(size, 4 * self._capacity + MOST_TEXTS + 4 * most_tiles(self._capacity, 64))
        pinned = torch.empty(room, dtype=torch.int32, pin_memory=True)
        out = torch.empty((MOST_TEXTS, self._dimension), dtype=torch.float32, pin_memory=True)
        device = torch.empty(room, dtype=torch.int32, device=self._device)
        return _Slot(pinned, pinned.numpy(), device, out, out.numpy())

    def _give_back(self, slot: _Slot) -> None:
        if len(self._free) < _SLOTS:
            self._free.append(slot)

    def _tiles(self, batch: Packed, block: int) -> Ints:
        if self._kind != "tiled":
            return np.zeros((0, 4), np.int32)
        return attention_tiles(batch.lengths.tolist(), block)

    # Captured batches -----------------------------------------------------------------------------------

    def _graph_for(self, batch: Packed, normalize: bool) -> _Graph | None:
        key = _bucket(batch.tokens, batch.texts)
        if key is None:
            return None
        graph = self._captured((*key, normalize))
        return None if graph is None or graph.busy else graph

    def _replay(self, graph: _Graph, batch: Packed) -> Ticket:
        graph.layout.fill(graph.numbers, batch, self._tiles(batch, graph.layout.block))
        graph.busy = True
        with torch.cuda.stream(self._stream):
            graph.graph.replay()
            copied = self._stream.record_event()
        return _GraphTicket(graph, copied, batch.texts)

    def _captured(self, key: tuple[int, int, bool]) -> _Graph | None:
        known = self._graphs.get(key)
        if known is not None or self._graph_bytes_left <= 0:
            return known
        before = torch.cuda.memory_reserved(self._device)
        graph = self._capture(*key)
        self._graph_bytes_left -= torch.cuda.memory_reserved(self._device) - before
        self._graphs[key] = graph
        return graph

    def _capture(self, tokens: int, texts: int, normalize: bool) -> _Graph:
        block = min(64, max(16, 1 << (tokens - 1).bit_length()))
        layout = _Layout(tokens, texts, most_tiles(tokens, block) if self._kind == "tiled" else 0, block)
        pinned = torch.zeros(layout.size, dtype=torch.int32, pin_memory=True)
        out = torch.empty((texts, self._dimension), dtype=torch.float32, pin_memory=True)
        device = torch.zeros(layout.size, dtype=torch.int32, device=self._device)
        sample = Packed(
            np.zeros(tokens, np.int32), np.zeros(tokens, np.int32), np.array([0, tokens], np.int32)
        )
        numbers: NDArray[np.int32] = pinned.numpy()
        layout.fill(numbers, sample, self._tiles(sample, block))
        row = layout.row(device, tokens, None)

        def run() -> Tensor:
            device.copy_(pinned, non_blocking=True)
            answer = self._forward(row, normalize=normalize)
            out.copy_(answer, non_blocking=True)
            return answer

        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            run()  # compiles kernels and opens libraries, neither of which can be captured
            self._stream.synchronize()
            # Not `torch.cuda.graph`: it collects garbage and empties the cache on every capture.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                answer = run()
            finally:
                graph.capture_end()
        return _Graph(graph, layout, numbers, out.numpy(), (pinned, device, out, answer))


@dataclass(frozen=True, slots=True)
class _EagerTicket:
    runner: CudaRunner
    slot: _Slot
    copied: torch.cuda.Event
    answer: Tensor
    """Kept until it is copied out: its memory is reused once nobody holds it."""
    texts: int

    def wait(self) -> None:
        self.copied.synchronize()

    def collect(self) -> Vectors:
        self.copied.synchronize()
        self.runner._give_back(self.slot)
        return self.slot.vectors[: self.texts]


@dataclass(frozen=True, slots=True)
class _GraphTicket:
    graph: _Graph
    copied: torch.cuda.Event
    texts: int

    def wait(self) -> None:
        self.copied.synchronize()

    def collect(self) -> Vectors:
        self.copied.synchronize()
        self.graph.busy = False
        return self.graph.vectors[: self.texts]


def _bucket(tokens: int, texts: int) -> tuple[int, int] | None:
    """The smallest bucket that holds so many tokens and texts; None beyond the largest."""
    if tokens > TOKEN_BUCKETS[-1] or texts > TEXT_BUCKETS[-1]:
        return None
    return (
        TOKEN_BUCKETS[bisect_left(TOKEN_BUCKETS, tokens)],
        TEXT_BUCKETS[bisect_left(TEXT_BUCKETS, texts)],
    )
