"""The worker's side: loads the model, embeds, and answers while it embeds.

The reader thread takes frames off the socket and answers at once what needs no model. The main thread loads,
then serves requests; an encoder that puts the texts of several requests into one batch gets more threads to
call it from. When the engine is gone the socket ends, and so does the process, whatever the others are doing.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

from embedctl.encoder.model_folder import require_model
from embedctl.errors import Cancelled, EmbedctlError
from embedctl.worker.channel import Channel
from embedctl.worker.frames import Frame, FrameError, unpack_texts
from embedctl.worker.protocol import WorkerMemory, WorkerOptions, WorkerReady, error_fields

if TYPE_CHECKING:  # torch is imported by `_load`, after the reader thread has started
    import torch

    from embedctl.encoder.factory import Selection

log = logging.getLogger(__name__)

LANES = 16
"""Requests that may stand before an encoder at once, to share its batches; the others wait in the queue."""
EXIT_DEVICE_FAILED = 70
"""The device is in a state that only a new process can leave (EX_SOFTWARE)."""
EXIT_PROTOCOL = 76
"""What came over the socket was no frame (EX_PROTOCOL)."""


class WorkerServer:
    """Serves one engine over `channel` until it is told to stop or the engine is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._work: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._wanted: set[int] = set()
        """Requests that wait or run; a cancelled one is taken off."""
        self._device: torch.device | None = None

    def run(self) -> None:
        """Load, then embed for ever; the reader ends the process. Returns only when the load failed."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        try:
            selection = self._load(WorkerOptions(**self._work.get().header["options"]))
        except Exception as error:
            log.exception("the load failed")
            self._send(Frame({"kind": "failed", "error": error_fields(error)}))
            return
        self.open_lanes(selection)
        self._serve_all(selection)

    # The reader thread

    def _read(self) -> None:
        try:
            while (frame := self._channel.receive()) is not None:
                self.route(frame)
        except FrameError:
            log.exception("the engine sent what is no frame")
            os._exit(EXIT_PROTOCOL)
        except OSError:
            log.info("the connection to the engine broke")
        # Not sys.exit: the main thread may be deep in a forward pass, and nobody waits for its result.
        os._exit(0)

    def route(self, frame: Frame) -> None:
        """Answer at once what needs no model, note what is cancelled, and queue the rest."""
        match frame.kind:
            case "ping":
                self._send(Frame({"kind": "pong", "id": frame.id}))
            case "memory":
                self._send(Frame({"kind": "memory", "id": frame.id, **asdict(self._memory())}))
            case "cancel":
                self._wanted.discard(frame.id)
            case _:
                self._wanted.add(frame.id)
                self._work.put(frame)

    # The main thread and the lanes beside it

    def _load(self, options: WorkerOptions) -> Selection:
        require_model(options.folder)  # said at once, not after torch is there
        self._step("importing torch")
        import torch

        from embedctl.encoder.factory import EncoderOptions, select_encoder
        from embedctl.encoder.loading import load_model

        self._step("loading weights")
        model = load_model(
            options.folder,
            device=options.device,
            dtype=options.dtype,
            max_tokens=options.max_tokens,
            threads=options.threads,
        )
        notes: tuple[str, ...] = ()
        if options.max_tokens is not None and options.max_tokens > int(model.max_seq_length or 0):
            notes = (f"max_tokens {options.max_tokens} is beyond the model's {model.max_seq_length}",)
        self._step("canary")
        selection = select_encoder(model, EncoderOptions(options.attention, options.batch_size))
        self._device = torch.device(selection.encoder.info.device)
        info = selection.encoder.info
        ready = WorkerReady(
            encoder=info.kind,
            device=info.device,
            device_name=_device_name(self._device),
            dtype=info.dtype,
            attention=info.attention,
            dimension=info.dimension,
            max_tokens=info.max_tokens,
            pooling=info.pooling,
            versions=_versions(),
            notes=(*notes, *selection.notes, *info.notes),
            canary=selection.canary,
            memory=self._memory(),
        )
        self._send(Frame({"kind": "ready", **asdict(ready)}))
        return selection

    def open_lanes(self, selection: Selection) -> None:
        """Start the threads that serve requests beside the main one, if the encoder can share batches."""
        for number in range(1, LANES if selection.encoder.concurrent else 1):
            threading.Thread(
                target=self._serve_all, args=(selection,), name=f"lane-{number}", daemon=True
            ).start()

    def _serve_all(self, selection: Selection) -> NoReturn:
        while True:
            self.serve(self._work.get(), selection)

    def serve(self, frame: Frame, selection: Selection) -> None:
        """Answer one request, with vectors or with an error."""
        device_failed = False
        try:
            answer = self._answer(frame, selection)
        except Exception as error:
            if not isinstance(error, EmbedctlError):
                log.exception("a request failed")
            # After such an error every later call fails too (an illegal access poisons the CUDA context).
            device_failed = isinstance(error, RuntimeError) and "CUDA error" in str(error)
            answer = Frame({"kind": "error", "id": frame.id, "error": error_fields(error)})
        self._send(answer)
        self._wanted.discard(frame.id)
        if device_failed:
            os._exit(EXIT_DEVICE_FAILED)

    def _answer(self, frame: Frame, selection: Selection) -> Frame:
        match frame.kind:
            case "embed":
                return self._embed(frame, selection)
            case "canary":
                from embedctl.encoder.canary import check

                report = check(selection.encoder, selection.reference)
                return Frame({"kind": "canary", "id": frame.id, "report": asdict(report)})
            case kind:
                raise FrameError(f"the worker knows no {kind!r}")

    def _embed(self, frame: Frame, selection: Selection) -> Frame:
        import numpy as np

        if frame.id not in self._wanted:
            raise Cancelled
        header = frame.header
        encoded = selection.encoder.encode(
            unpack_texts(frame.payload, header["count"]),
            batch_size=header["batch_size"],
            normalize=header["normalize"],
            cancelled=lambda: frame.id not in self._wanted,
        )
        vectors = np.ascontiguousarray(encoded.vectors, dtype="<f4")
        return Frame(
            {
                "kind": "vectors",
                "id": frame.id,
                "rows": vectors.shape[0],
                "dimension": vectors.shape[1],
                "tokens": int(encoded.token_counts.sum()),
                "truncated": encoded.truncated,
                "failures": [(failure.index, failure.what) for failure in encoded.failures],
                "notes": encoded.notes,
            },
            vectors.reshape(-1).view(np.uint8).data,
        )

    # Both

    def _step(self, name: str) -> None:
        self._send(Frame({"kind": "step", "name": name}))

    def _send(self, frame: Frame) -> None:
        try:
            self._channel.send(frame)
        except OSError:
            os._exit(0)  # the engine is gone; the reader will see it too

    def _memory(self) -> WorkerMemory:
        import psutil

        process = psutil.Process()
        figures: dict[str, Any] = {}
        if self._device is not None and self._device.type == "cuda":
            import torch

            figures = {
                "reserved": torch.cuda.memory_reserved(self._device),
                "allocated": torch.cuda.memory_allocated(self._device),
                "peak": torch.cuda.max_memory_allocated(self._device),
            }
        elif self._device is not None and self._device.type == "mps":
            import torch

            figures = {
                "reserved": torch.mps.driver_allocated_memory(),
                "allocated": torch.mps.current_allocated_memory(),
            }
        children = (child.pid for child in process.children(recursive=True))
        return WorkerMemory(rss=process.memory_info().rss, pids=(process.pid, *children), **figures)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    import platform

    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    import sentence_transformers
    import torch
    import transformers

    versions = {
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "sentence-transformers": sentence_transformers.__version__,
    }
    return {**versions, "cuda": str(torch.version.cuda)} if torch.version.cuda else versions
