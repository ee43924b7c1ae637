"""Batches across requests: no delay when idle, larger batches under load, single queries beside bulk jobs.

There is no thread of its own. Whoever calls `run` while nobody drives, drives: it launches and collects
batches, of all requests, until its own is done, and then leaves the driving to the next. So a lone query pays
no hand-over, and requests that arrive while the device is busy are packed into one batch together.

A server that has many callers and few threads uses `submit` and `drive` instead: requests are left here
without waiting, and whoever drives delivers the answers of each batch together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from embedctl.encoder.jobs import Job
from embedctl.encoder.memory import is_out_of_memory
from embedctl.encoder.packing import pack
from embedctl.encoder.requests import Part, Requests
from embedctl.encoder.runner import Runner, Staged, Ticket
from embedctl.errors import BackendError, BackendNotLoadedError, Cancelled


@dataclass(slots=True)
class _Batch:
    """A batch put together and ready to go."""

    parts: list[Part]
    order: list[tuple[int, int]]
    """For each row of the batch, the part and the place in it."""
    tokens: int
    staged: Staged


@dataclass(slots=True)
class _Flight:
    """A batch on the device."""

    batch: _Batch
    ticket: Ticket


class Scheduler:
    """Packs the texts of concurrent requests into batches and runs them one after the other.

    One batch is on the device at a time, while the next bulk batch is put together and uploaded beside it: a
    query never waits for more than the batch that runs. Queries and bulk batches take turns where both wait.

    Args:
        runner: Runs batches.
        token_budget: Most tokens of a batch of several texts. Halved when memory does not suffice.
        most_texts: Most texts of a batch.
        first_position, skipped_id: See `packing.pack`.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        token_budget: int,
        most_texts: int,
        first_position: int,
        skipped_id: int | None,
    ) -> None:
        self._runner = runner
        self._budget = token_budget
        self._most_texts = most_texts
        self._first_position = first_position
        self._skipped_id = skipped_id
        self._turn = threading.Condition()
        self._driven = False
        self._requests = Requests(self._turn)
        self._served = False
        """A `drive` is there for the submitted jobs."""
        self._closed = False
        # Up to here guarded by `_turn`; what follows belongs to whoever drives.
        self._meanwhile: Callable[[], None] | None = None
        self._flight: _Flight | None = None
        self._bulk: _Batch | None = None
        """The next bulk batch, put together while another one runs."""
        self._bulk_next = False
        self._batches = 0

    @property
    def token_budget(self) -> int:
        return self._budget

    @property
    def batches(self) -> int:
        """Batches put on the device so far."""
        return self._batches

    def run(self, job: Job) -> None:
        """Return once `job` is finished.

        Raises:
            Cancelled: The job's `cancelled` said so; its place is free again.
            BackendNotLoadedError: The scheduler is closed.
        """
        if job.is_finished():
            return
        with self._turn:
            self._require_open()
            self._requests.add(job)
        try:
            while not job.is_finished():
                with self._turn:
                    self._turn.wait_for(lambda: job.is_finished() or not self._driven)
                    if job.is_finished():
                        break
                    self._driven = True
                try:
                    while not job.is_finished():
                        self._advance()
                finally:
                    with self._turn:
                        self._driven = False
                        self._turn.notify_all()
        finally:
            self._requests.remove(job)
        if isinstance(job.error, Cancelled):
            raise job.error

    def submit(self, job: Job) -> bool:
        """Leave `job` to a `drive`; true if there is none, and the caller has to call it now.

        Raises:
            BackendNotLoadedError: The scheduler is closed.
        """
        with self._turn:
            self._require_open()
            self._requests.add(job, submitted=True)
            first, self._served = not self._served, True
        return first

    def drive(
        self, deliver: Callable[[list[Job]], None], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Run batches until no submitted job is left. For the caller to whom `submit` has said so.

        Args:
            deliver: Gets the submitted jobs that are finished, after each batch and while the next one runs.
            meanwhile: Called again and again while the device works; may `submit`.
        """
        with self._turn:
            self._turn.wait_for(lambda: not self._driven)
            self._driven = True
        self._meanwhile = meanwhile
        try:
            while True:
                if finished := self._requests.take_finished():
                    deliver(finished)
                with self._turn:
                    if not self._requests.any_submitted:
                        self._served = False
                        return
                self._advance()
        except BaseException:
            with self._turn:
                self._served = False
            raise
        finally:
            self._meanwhile = None
            with self._turn:
                self._driven = False
                self._turn.notify_all()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have the device to oneself while inside: requests wait.

        Raises:
            BackendNotLoadedError: The scheduler is closed.
        """
        with self._turn:
            self._turn.wait_for(lambda: not self._driven or self._closed)
            self._require_open()
            self._driven = True
        try:
            yield
        finally:
            with self._turn:
                self._driven = False
                self._turn.notify_all()

    def close(self) -> None:
        """Fail what waits and take nothing more. Returns when the batch that ran is done. Final."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self._driven)
            self._driven = True
        self._drop_unwanted()
        flight, self._flight, self._bulk = self._flight, None, None
        if flight is not None:
            with suppress(Exception):  # nobody asks for it any more
                flight.ticket.wait()
        with self._turn:
            self._driven = False

    def _require_open(self) -> None:
        if self._closed:
            raise _closed()

    # One step of the driver -------------------------------------------------------------------------------

    def _advance(self) -> None:
        """One step. A fault of ours in it ends every request: nobody may be left waiting."""
        try:
            self._step()
        except BaseException as error:
            self._flight = self._bulk = None
            ours = isinstance(error, Exception)
            for job in self._requests.waiting():
                self._requests.end(job, error if ours else BackendError("Embedding was interrupted"))
            if not ours:
                raise

    def _step(self) -> None:
        """Put the next batch on the device as soon as the one before it is done."""
        before = self._flight
        if before is not None:
            self._drop_unwanted()
            if self._bulk is None:
                self._bulk = self._compose_bulk(wait=False)
            if (problem := _problem(partial(self._wait, before.ticket))) is not None:
                self._give_up(before.batch, problem)
                before = None
        self._flight = None
        self._drop_unwanted()
        bulk_first = self._bulk_next and self._bulk is not None
        small = [] if bulk_first else self._requests.small(self._budget, self._most_texts)
        self._bulk_next = bool(small)
        if small:
            self._flight = self._launch(self._compose(small))
        else:
            if self._bulk is None:
                self._bulk = self._compose_bulk(wait=before is None)
            bulk, self._bulk = self._bulk, None
            self._flight = self._launch(bulk)
        if before is not None:
            self._deliver(before)

    def _wait(self, ticket: Ticket) -> None:
        if self._meanwhile is not None:
            self._meanwhile()  # also beside a batch that is done already
            while ticket.pending():
                self._meanwhile()
        ticket.wait()

    def _drop_unwanted(self) -> None:
        for job in self._requests.waiting():
            if self._closed:
                self._requests.end(job, _closed())
                continue
            try:
                if job.cancelled is not None and job.cancelled():
                    raise Cancelled
            except BaseException as error:  # whatever the caller's function raises is that caller's
                self._requests.end(job, error)
        if self._bulk is not None and all(part.job.is_finished() for part in self._bulk.parts):
            self._bulk = None

    def _compose_bulk(self, *, wait: bool) -> _Batch | None:
        return self._compose(self._requests.bulk(self._budget, self._most_texts, wait=wait))

    def _compose(self, parts: list[Part]) -> _Batch | None:
        if not parts:
            return None
        # Long texts first: their attention tiles take longest. Equal lengths stand together.
        order = sorted(
            ((p, i) for p, part in enumerate(parts) for i in range(len(part.items))),
            key=lambda place: -len(parts[place[0]].items[place[1]][1]),
        )
        packed = pack(
            [parts[p].items[i][1] for p, i in order],
            first_position=self._first_position,
            skipped_id=self._skipped_id,
        )
        try:
            staged = self._runner.stage(packed, normalize=parts[0].job.normalize)
        except Exception as error:
            if not is_out_of_memory(error):
                self._fail(parts, error)
                return None
        else:
            return _Batch(parts, order, packed.tokens, staged)
        self._shrink(parts, packed.tokens)
        return None

    def _launch(self, batch: _Batch | None) -> _Flight | None:
        if batch is None:
            return None
        try:
            flight = _Flight(batch, batch.staged.launch())
        except Exception as error:
            problem = error
        else:
            self._batches += 1
            return flight
        self._give_up(batch, problem)
        return None

    def _give_up(self, batch: _Batch, error: Exception) -> None:
        """The batch brought no vectors: smaller ones may, if memory was what it lacked."""
        if is_out_of_memory(error):
            error.__traceback__ = None  # it keeps the batch's tensors alive
            self._shrink(batch.parts, batch.tokens)
        else:
            self._fail(batch.parts, error)

    def _shrink(self, parts: list[Part], tokens: int) -> None:
        """Memory did not suffice: put the texts back and go on with half the budget."""
        self._runner.release_memory()
        if sum(len(part.items) for part in parts) == 1:
            part = parts[0]
            part.job.fail_for_memory(part.items[0][0])
            self._requests.notify()
            return
        # A batch staged before memory ran out may be larger than the budget of now.
        self._budget = max(1, min(self._budget, tokens // 2))
        for part in parts:
            part.job.put_back(part.items)
            part.job.notes = [f"out of memory with {tokens} tokens per batch: went on with {self._budget}"]

    def _deliver(self, flight: _Flight) -> None:
        batch = flight.batch
        try:
            vectors = flight.ticket.collect()
        except Exception as error:
            self._fail(batch.parts, error)
            return
        if len(batch.parts) == 1:
            part = batch.parts[0]
            part.job.add([part.items[i][0] for _, i in batch.order], vectors)
        else:
            for number, part in enumerate(batch.parts):
                rows = [row for row, (p, _) in enumerate(batch.order) if p == number]
                part.job.add([part.items[batch.order[row][1]][0] for row in rows], vectors[rows])
        self._requests.notify()

    def _fail(self, parts: list[Part], error: BaseException) -> None:
        for part in parts:
            self._requests.end(part.job, error)


def _problem(call: Callable[[], None]) -> Exception | None:
    """What `call` raised, told outside the `except` block, which keeps the raising frames alive."""
    try:
        call()
    except Exception as error:
        return error
    return None


def _closed() -> BackendNotLoadedError:
    return BackendNotLoadedError(
        "The encoder was closed", why="its model is being unloaded", remedy="load the model again"
    )
