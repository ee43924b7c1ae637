"""The worker's side: loads the model, embeds, and answers while it embeds.

Two threads take turns. One reads frames, and answers at once what needs no model. When it has read a request
and nobody works, it works on it itself, and the other one goes on reading: a lone request passes through no
queue and waits for no thread. Requests that arrive meanwhile are left with the encoder, which packs them into
its next batch; the answers of a batch go out together. When the engine is gone the socket ends, and so does
the process, whatever the others are doing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from embedctl.encoder.ahead import begin, importing
from embedctl.encoder.base import Answer, Encoded
from embedctl.encoder.model_folder import require_model
from embedctl.errors import BackendNotLoadedError, EmbedctlError, UsageError
from embedctl.records import TuneReport
from embedctl.worker.channel import Channel
from embedctl.worker.desk import Desk, OneByOne
from embedctl.worker.frames import Frame, FrameError, unpack_texts
from embedctl.worker.protocol import WorkerMemory, WorkerOptions, WorkerReady, error_fields

if TYPE_CHECKING:  # torch is imported by `_load`, after the reader thread has started
    import torch

    from embedctl.encoder.factory import Selection

log = logging.getLogger(__name__)

_LINGER_S = 200e-6
"""Covers a client that sends one query after the other; a worker at rest costs nothing."""
EXIT_DEVICE_FAILED = 70
"""The device is in a state that only a new process can leave (EX_SOFTWARE)."""
EXIT_PROTOCOL = 76
"""What came over the socket was no frame (EX_PROTOCOL)."""


class WorkerServer:
    """Serves one engine over `channel` until it is told to stop or the engine is gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reading = threading.Lock()
        """Held by the one thread that takes frames off the socket."""
        self._desk: Desk | None = None
        """Where requests go; None while the model is loaded."""
        self._selection: Selection | None = None
        self._wanted: set[int] = set()
        """Requests that wait or run; a cancelled one is taken off."""
        self._aside: set[int] = set()
        """Requests that have the model for themselves meanwhile; the desk may make others wait long."""
        self._short_waits = False
        self._device: torch.device | None = None
        self._budgets: tuple[Path, str] | None = None
        """Where the token budget is kept, and what for."""

    def run(self) -> None:
        """Load, then embed until the engine is gone. Returns only when the load failed."""
        options = WorkerOptions(**self._receive().header["options"])
        threading.Thread(target=self._take_turns, name="beside", daemon=True).start()
        try:
            selection = self._load(options)
        except Exception as error:
            log.exception("the load failed")
            self._send(Frame({"kind": "failed", "error": error_fields(error)}))
            return
        self.open(selection)
        self._send_ready(selection)
        self._take_turns()

    # Two threads take turns

    def _take_turns(self) -> NoReturn:
        while True:
            with self._reading:
                desk = self._read_until_work()
            desk.drive(self.deliver)  # the other thread reads meanwhile

    def _read_until_work(self) -> Desk:
        """Read, until the other thread has to read on: this one is needed at the desk it returns."""
        while True:
            desk = self.route(self._receive())
            if desk is None:
                continue
            if not self._short_waits or self._aside:
                return desk
            # A GPU is waited for in steps of milliseconds, which this thread spends on reading: waking the
            # other one would take the processor longer than all of a query's own work.
            desk.drive(self.deliver, self._read_along)
            self._linger()

    def _read_along(self) -> None:
        while self._channel.has_some():
            self.route(self._receive())

    def _linger(self) -> None:
        """Look out for the next request a little before going to sleep, from which waking takes long."""
        until = time.perf_counter() + _LINGER_S
        while not self._channel.has_some() and time.perf_counter() < until:
            pass

    def _receive(self) -> Frame:
        """The next frame; ends the process when there will be none."""
        try:
            frame = self._channel.receive()
        except FrameError:
            log.exception("the engine sent what is no frame")
            os._exit(EXIT_PROTOCOL)
        except OSError:
            log.info("the connection to the engine broke")
            os._exit(0)
        if frame is None:
            os._exit(0)  # not sys.exit: the other thread may be deep in a forward pass that nobody waits for
        return frame

    def open(self, selection: Selection) -> None:
        """Let requests in, to be answered by this encoder."""
        encoder = selection.encoder
        self._selection = selection
        self._desk = encoder if isinstance(encoder, Desk) else OneByOne(encoder)
        self._short_waits = self._desk is encoder and encoder.info.device.startswith("cuda")

    def route(self, frame: Frame) -> Desk | None:
        """Answer what needs no model, else leave it at the desk. Returns a desk that has to be driven."""
        match frame.kind:
            case "ping":
                self._send(Frame({"kind": "pong", "id": frame.id}))
            case "cancel":
                self._wanted.discard(frame.id)
            case "embed":
                return self._submit(frame)
            case "memory" | "canary" | "tune":  # rare and slow: beside the two threads
                self._wanted.add(frame.id)
                if frame.kind != "memory":
                    self._aside.add(frame.id)
                threading.Thread(target=self._answer, args=(frame,), name=frame.kind, daemon=True).start()
            case kind:
                log.error("the worker knows no %r", kind)
                os._exit(EXIT_PROTOCOL)
        return None

    def _submit(self, frame: Frame) -> Desk | None:
        number, header, desk = frame.id, frame.header, self._desk
        self._wanted.add(number)
        try:
            if desk is None:
                raise BackendNotLoadedError("The model is still being loaded")
            first = desk.submit(
                number,
                unpack_texts(frame.payload, header["count"]),
                batch_size=header["batch_size"],
                normalize=header["normalize"],
                cancelled=lambda: number not in self._wanted,
            )
        except Exception as error:  # also of a tokenizer
            self.deliver([(number, error)])
            return None
        return desk if first else None

    def deliver(self, answers: list[Answer]) -> None:
        """Send what has become of some requests, all at once."""
        self._wanted.difference_update(number for number, _ in answers)
        try:
            self._send(*(self._frame(number, outcome) for number, outcome in answers))
        except FrameError:  # one of them; nothing was sent
            for number, outcome in answers:
                self._send_if_it_fits(number, outcome)
        if any(_device_failed(outcome) for _, outcome in answers):
            os._exit(EXIT_DEVICE_FAILED)

    def _send_if_it_fits(self, number: int, outcome: Encoded | Exception) -> None:
        try:
            self._send(self._frame(number, outcome))
        except FrameError as error:
            too_large = UsageError(
                "The answer is too large", why=str(error), remedy="send the texts in several requests"
            )
            self._send(self._frame(number, too_large))

    def _frame(self, number: int, outcome: Encoded | Exception) -> Frame:
        if isinstance(outcome, Exception):
            if not isinstance(outcome, EmbedctlError):
                log.error("a request failed", exc_info=outcome)
            return Frame({"kind": "error", "id": number, "error": error_fields(outcome)})
        vectors = np.ascontiguousarray(outcome.vectors, dtype="<f4")
        header = {
            "kind": "vectors",
            "id": number,
            "rows": vectors.shape[0],
            "dimension": vectors.shape[1],
            "tokens": int(outcome.token_counts.sum()),
            "truncated": outcome.truncated,
            "failures": [(failure.index, failure.what) for failure in outcome.failures],
            "notes": outcome.notes,
        }
        return Frame(header, vectors.reshape(-1).view(np.uint8).data)

    def _answer(self, frame: Frame) -> None:
        """Answer what is rare, on a thread of its own."""
        try:
            if frame.kind == "memory":
                fields = asdict(self._memory())
            elif frame.kind == "tune":
                fields = {"report": asdict(self._tune(frame.id))}
            elif self._selection is not None:
                from embedctl.encoder.canary import check

                fields = {"report": asdict(check(self._selection.encoder, self._selection.reference))}
            else:
                raise BackendNotLoadedError("The model is still being loaded")
        except Exception as error:
            self.deliver([(frame.id, error)])
        else:
            self._wanted.discard(frame.id)
            self._send(Frame({"kind": frame.kind, "id": frame.id, **fields}))
        finally:
            self._aside.discard(frame.id)

    def _tune(self, number: int) -> TuneReport:
        from embedctl.encoder.fast import FastEncoder
        from embedctl.encoder.tuning import remember

        encoder = self._selection.encoder if self._selection is not None else None
        if not isinstance(encoder, FastEncoder):
            raise UsageError(
                "There is no token budget to tune",
                why="the loaded model is run by sentence-transformers, which goes by a number of texts"
                if encoder is not None
                else "the model is still being loaded",
                remedy="set native.batch_size",
            )
        tuned = encoder.tune(cancelled=lambda: number not in self._wanted)
        if self._budgets is not None:
            file, key = self._budgets
            remember(file, key, tuned)
        return TuneReport(
            token_budget=tuned.token_budget,
            before=encoder.token_budget,
            rates=tuple(sorted(tuned.tokens_per_s.items())),
            device=_device_name(self._device),
        )

    # The load

    def _load(self, options: WorkerOptions) -> Selection:
        folder = require_model(options.folder)  # said at once, not after torch is there
        self._step("importing torch")
        begin(folder, options.device)
        with importing():
            from embedctl.encoder.factory import EncoderOptions, open_encoder
            from embedctl.encoder.loading import EIGHT_BIT, resolve_device, resolve_dtype

        self._device = device = resolve_device(options.device)
        dtype = resolve_dtype(options.dtype, device)
        selection = open_encoder(
            folder,
            EncoderOptions(
                options.attention,
                options.batch_size,
                token_budget=options.token_budget or self._remembered_budget(options, dtype),
                memory_floor=options.memory_floor,
                eight_bit=options.dtype == EIGHT_BIT,
            ),
            device=device,
            dtype=dtype,
            max_tokens=options.max_tokens,
            threads=options.threads,
            references=None if options.references is None else Path(options.references),
            step=self._step,
        )
        limit = selection.encoder.info.max_tokens
        if options.max_tokens is not None and options.max_tokens > limit:
            beyond = f"max_tokens {options.max_tokens} is beyond the model's {limit}"
            selection = replace(selection, notes=(beyond, *selection.notes))
        return selection

    def _remembered_budget(self, options: WorkerOptions, dtype: torch.dtype) -> int | None:
        from embedctl.encoder.tuning import key_of, recall

        if options.budgets_file is None:
            return None
        file, key = Path(options.budgets_file), key_of(options.folder, dtype, _device_name(self._device))
        self._budgets = (file, key)
        return recall(file, key)

    def _send_ready(self, selection: Selection) -> None:
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
            notes=(*selection.notes, *info.notes),
            way=selection.way,
            canary=selection.canary,
            memory=self._memory(),
        )
        self._send(Frame({"kind": "ready", **asdict(ready)}))

    # Both

    def _step(self, name: str) -> None:
        self._send(Frame({"kind": "step", "name": name}))

    def _send(self, *frames: Frame) -> None:
        try:
            self._channel.send(*frames)
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


def _device_failed(outcome: Encoded | Exception) -> bool:
    """After such an error every later call fails too (an illegal access poisons the CUDA context)."""
    return isinstance(outcome, RuntimeError) and "CUDA error" in str(outcome)


def _device_name(device: torch.device | None) -> str:
    from embedctl.encoder.loading import name_of

    return "n/a" if device is None else name_of(device)


def _versions() -> dict[str, str]:
    import torch

    versions = {"torch": str(torch.__version__)}
    versions |= {name: version(name) for name in ("transformers", "sentence-transformers")}
    return {**versions, "cuda": str(torch.version.cuda)} if torch.version.cuda else versions
