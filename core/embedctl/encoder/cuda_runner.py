"""Running packed batches on a CUDA device: pinned staging, asynchronous copies, captured graphs.

A batch is one copy in (every index it needs lies in one int32 vector), the model, and one copy out, each on
a stream of its own: the next batch is uploaded and the last one downloaded while one computes. Nothing
waits for the device but a ticket's `wait`.

Launching a batch kernel by kernel costs the CPU some 7 ms. So batches of few tokens, and bulk batches that
fill their budget, replay a CUDA graph captured for the next larger bucket of tokens and texts; both copies
are part of the graph. Rows beyond a batch's own belong to no text: nothing looks at them.
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
from embedctl.encoder.memory import is_out_of_memory, release_cached
from embedctl.encoder.packing import Ints, Packed, attention_tiles, most_tiles, runs
from embedctl.encoder.runner import Staged, Ticket, Vectors

TOKEN_BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
TEXT_BUCKETS = (1, 4, 16, 64)
MOST_TEXTS = 2048
"""Texts per batch at most: it bounds the pinned memory for answers."""
_GRAPH_DRIVER_BYTES = 14 * 2**20
"""What the driver keeps of one captured graph, outside torch's count: NVML showed 0.14 GiB more for the ten
graphs captured at load than without graphs (BGE-M3's shape on an H200)."""
_BULK_TEXT_BUCKETS = (4, 64, 256, 512, 1024, MOST_TEXTS)
_BULK_FILL = 0.85
"""A bulk batch fuller than this share of its budget replays a graph: empty rows cost less than launches."""
_LONG = 4096
"""With a text of so many tokens, attention is fastest in tiles of 128 rows, else of 64."""
_SLOTS = 3
_TWINS = 2
"""Graphs of one bucket: one is filled while the other one runs."""

_Key = tuple[int, int, int, bool]
"""Tokens, texts, rows of an attention tile, normalize."""


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
    taken: bool = False
    """From staging until its vectors are collected."""


class CudaRunner:
    """Runs batches on one CUDA device, on a stream of its own.

    Args:
        forward: The model.
        kind: The attention inside `forward`; decides which index tables a batch needs.
        dimension: Of the vectors.
        budget: Most tokens of a batch of several texts.
        capacity: Most tokens of any batch.
        graphs: Capture graphs for small batches.
        graph_bytes: Device memory that captured graphs may take, the driver's share among it.
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
        graphs: bool,
        graph_bytes: int = 512 * 2**20,
    ) -> None:
        self._forward = forward
        self._device = device
        self._kind = kind
        self._dimension = dimension
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._budget = budget
        self._capacity = capacity
        self._free: list[_Slot] = []
        self._use_graphs = graphs
        self._graphs: dict[_Key, list[_Graph]] = {}
        self._graph_bytes_left = graph_bytes
        self._pool = torch.cuda.graph_pool_handle() if graphs else None

    def stage(self, batch: Packed, *, normalize: bool) -> Staged:
        """See `Runner.stage`."""
        with torch.inference_mode(), torch.cuda.device(self._device):
            key = self._key(batch, normalize)
            graph = None if key is None else self._free_graph(key)
            if graph is None:
                return self._upload(batch, normalize)
            graph.layout.fill(graph.numbers, batch, self._tiles(batch, graph.layout.block))
            graph.taken = True
            return _GraphBatch(self, graph, batch.texts)

    def capture(self, tokens: int, *, normalize: bool = True) -> None:
        """Capture the graph for one text of so many tokens, if there is memory for it."""
        sample = Packed(
            np.zeros(tokens, np.int32), np.zeros(tokens, np.int32), np.array([0, tokens], np.int32)
        )
        with torch.inference_mode(), torch.cuda.device(self._device):
            key = self._key(sample, normalize)
            if key is not None:
                self._free_graph(key)

    def release_memory(self) -> None:
        """See `Runner.release_memory`."""
        release_cached(self._device)

    @property
    def graphs(self) -> int:
        """Graphs captured so far."""
        return sum(len(twins) for twins in self._graphs.values())

    # Eager batches ------------------------------------------------------------------------------------

    def _upload(self, batch: Packed, normalize: bool) -> _EagerBatch:
        block = _block(batch)
        tiles = self._tiles(batch, block)
        layout = _Layout(batch.tokens, batch.texts, len(tiles), block)
        slot = self._take_slot(layout.size)
        layout.fill(slot.numbers, batch, tiles)
        with torch.cuda.stream(self._uploads):
            vector = slot.device[: layout.size]
            vector.copy_(slot.pinned[: layout.size], non_blocking=True)
            uploaded = self._uploads.record_event()
        row = layout.row(vector, int(batch.lengths.max()), batch if self._kind == "grouped" else None)
        return _EagerBatch(self, slot, row, uploaded, batch.texts, normalize)

    def _start(self, batch: _EagerBatch) -> Ticket:
        slot = batch.slot
        with torch.inference_mode(), torch.cuda.device(self._device):
            try:
                with torch.cuda.stream(self._stream):
                    self._stream.wait_event(batch.uploaded)
                    answer = self._forward(batch.row, normalize=batch.normalize)
                    computed = self._stream.record_event()
                with torch.cuda.stream(self._downloads):
                    self._downloads.wait_event(computed)
                    slot.out[: batch.texts].copy_(answer, non_blocking=True)
                    copied = self._downloads.record_event()
            except BaseException:
                self._give_back(slot)
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

    def _key(self, batch: Packed, normalize: bool) -> _Key | None:
        """The bucket that serves `batch`; None if it is to be launched kernel by kernel."""
        if not self._use_graphs:
            return None
        if batch.tokens <= TOKEN_BUCKETS[-1] and batch.texts <= TEXT_BUCKETS[-1]:
            tokens = TOKEN_BUCKETS[bisect_left(TOKEN_BUCKETS, batch.tokens)]
            texts = TEXT_BUCKETS[bisect_left(TEXT_BUCKETS, batch.texts)]
            return tokens, texts, min(64, max(16, 1 << (tokens - 1).bit_length())), normalize
        if _BULK_FILL * self._budget <= batch.tokens <= self._budget and self._kind == "tiled":
            texts = _BULK_TEXT_BUCKETS[bisect_left(_BULK_TEXT_BUCKETS, batch.texts)]
            return self._budget, texts, _block(batch), normalize
        return None

    def _replay(self, graph: _Graph, texts: int) -> Ticket:
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            graph.graph.replay()
            copied = self._stream.record_event()
        return _GraphTicket(graph, copied, texts)

    def _free_graph(self, key: _Key) -> _Graph | None:
        twins = self._graphs.setdefault(key, [])
        for graph in twins:
            if not graph.taken:
                return graph
        if len(twins) == _TWINS or self._graph_bytes_left <= 0:
            return None
        try:
            twins.append(self._capture(*key))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._graph_bytes_left = 0
            return None
        return twins[-1]

    def _capture(self, tokens: int, texts: int, block: int, normalize: bool) -> _Graph:
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
            before = torch.cuda.memory_reserved(self._device)
            # Not `torch.cuda.graph`: it collects garbage and empties the cache on every capture.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                answer = run()
            finally:
                graph.capture_end()
        self._graph_bytes_left -= torch.cuda.memory_reserved(self._device) - before + _GRAPH_DRIVER_BYTES
        return _Graph(graph, layout, numbers, out.numpy(), (pinned, device, out, answer))


@dataclass(frozen=True, slots=True)
class _EagerBatch:
    runner: CudaRunner
    slot: _Slot
    row: Row
    uploaded: torch.cuda.Event
    texts: int
    normalize: bool

    def launch(self) -> Ticket:
        return self.runner._start(self)


@dataclass(frozen=True, slots=True)
class _GraphBatch:
    runner: CudaRunner
    graph: _Graph
    texts: int

    def launch(self) -> Ticket:
        return self.runner._replay(self.graph, self.texts)


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
        self.graph.taken = False
        return self.graph.vectors[: self.texts]


def _block(batch: Packed) -> int:
    return 128 if batch.lengths.max() >= _LONG else 64
