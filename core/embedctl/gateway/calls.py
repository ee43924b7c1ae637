"""One request from its first byte to its answer: its deadline, its client, its place in the queue."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from starlette.requests import Request

from embedctl.gateway.admission import Admission
from embedctl.gateway.bodies import LARGE, read_json
from embedctl.gateway.connection import on_lost
from embedctl.gateway.problems import RETRY_AFTER_S, ClientGone, Problem
from embedctl.gateway.threads import Threads
from embedctl.progress import CancelToken
from embedctl.settings import GatewaySettings

T = TypeVar("T")

DEADLINE_HEADER: Final = "X-Embedctl-Deadline-Ms"
FINGERPRINT_HEADER: Final = "X-Embedctl-Fingerprint"
PARTIAL_HEADER: Final = "X-Embedctl-Partial"
_READ: Final = {
    name.lower().encode(): name
    for name in (DEADLINE_HEADER, FINGERPRINT_HEADER, PARTIAL_HEADER, "Content-Encoding", "Content-Length")
}
"""What is read of a request's head: found in one pass, since each look through a head costs."""
_BODIES_HELD: Final = 4
"""Bodies of the largest size that may lie in memory at once; small ones come in far greater numbers."""
_MIB: Final = 1024 * 1024
_NUMBER: Final = re.compile(r"[0-9]{1,12}")


class Calls:
    """What all requests share: the queue, the threads that wait for the engine, the memory for bodies."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.admission = Admission(
            places=settings.max_in_flight,
            texts=settings.max_texts_in_flight,
            waiting=settings.max_waiting,
        )
        self.body_limit = int(settings.max_body_mib * _MIB)
        self.bytes_held = 0
        self.stopped = False
        """The time for a graceful end is over: calls under way are ended with 503."""
        self._open: set[Call] = set()
        self._threads = Threads("gateway-embed")

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._open)

    @property
    def bytes_room(self) -> int:
        return _BODIES_HELD * self.body_limit - self.bytes_held

    def open(self, request: Request) -> Call:
        """The call of a request; use it in an `async with`.

        Raises:
            Problem: The header that asks for a deadline is malformed.
        """
        head = request.scope["headers"]
        # Of a header that comes twice the first counts.
        headers = {_READ[name]: value.decode("latin-1") for name, value in reversed(head) if name in _READ}
        return Call(self, request, headers, _deadline(headers.get(DEADLINE_HEADER), self.settings.deadline_s))

    def run(self, work: Callable[[], None]) -> None:
        """Have an admitted request's work, which never raises, done in a thread."""
        self._threads.run(work, at_once=self.admission.in_flight)

    def opened(self, call: Call) -> None:
        self._open.add(call)

    def closed(self, call: Call) -> None:
        self._open.discard(call)

    def stop(self) -> None:
        """End the calls that are still under way. Must be called on the event loop."""
        self.stopped = True
        for call in tuple(self._open):
            call.end("stopped")

    def close(self) -> None:
        """Let the threads go; what they still do is not waited for."""
        self._threads.close()


class Call:
    """One request. Inside its `async with` block, it ends with a `Problem` at its deadline, and with
    `ClientGone` when the client has closed the connection; what it had the engine do is then taken back.
    """

    def __init__(self, calls: Calls, request: Request, headers: Mapping[str, str], seconds: float) -> None:
        self.headers = headers
        """Those of `_READ` that the request has."""
        self._calls = calls
        self._request = request
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._scope = asyncio.timeout(seconds)
        self._why = "deadline"
        self._reading = False
        self._held = 0

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._calls.opened(self)
        on_lost(self._request.scope, lambda: self.end("gone"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.closed(self)
        self._calls.bytes_held -= self._held
        on_lost(self._request.scope, None)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            raise self._ended() from None

    def end(self, why: str) -> None:
        """End it now, from the event loop: `gone` (the client) or `stopped` (the gateway)."""
        if self._scope.expired():
            return
        self._why = why
        with suppress(RuntimeError):  # it has just ended by itself
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def json(self) -> dict[str, Any]:
        """The request's body, which must be a JSON object.

        Raises:
            Problem: It is too large, compressed, or not such an object.
        """
        body = await self._body()
        found = await self.beside(lambda: read_json(body, self._calls.settings))
        if not isinstance(found, dict):
            raise Problem(400, "The body must be a JSON object", code="invalid_json")
        return found

    async def beside(self, do: Callable[[], T]) -> T:
        """What `do` makes of the body; in a thread where that is large, so that others go on meanwhile."""
        return await asyncio.to_thread(do) if self._held >= LARGE else do()

    async def work(self, texts: int, do: Callable[[float, CancelToken], T]) -> T:
        """Wait for a place for so many texts, then run `do` in a thread.

        Args:
            do: Gets the monotonic time until which it may run, and a token that is set when nobody waits
                for its result any more.

        Raises:
            Problem: Too many wait already.
        """
        admission = self._calls.admission
        await admission.enter(texts)
        token = CancelToken()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[T] = loop.create_future()

        def settle(tell: Callable[[], None]) -> None:
            # Not before: a thread that nobody waits for any more may be busy for longer, and so is its place.
            admission.leave(texts)
            if not answered.done():
                tell()

        def run() -> None:
            try:
                tell = partial(answered.set_result, do(self._until, token))
            except BaseException as error:
                tell = partial(answered.set_exception, error)
            with suppress(RuntimeError):  # the loop has ended, and its counts with it
                loop.call_soon_threadsafe(settle, tell)

        try:
            self._calls.run(run)
        except BaseException:  # no thread can be started
            admission.leave(texts)
            raise
        try:
            return await answered
        except asyncio.CancelledError:
            token.cancel()
            raise

    def texts_beside(self, texts: int) -> int:
        """Texts that the backend has from other requests, when this one, with so many, is at work."""
        return max(0, self._calls.admission.texts_in_flight - texts)

    async def _body(self) -> bytes:
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem(415, "Send the body uncompressed", code="unsupported_encoding", close=True)
        length = self.headers.get("Content-Length", "")
        if _NUMBER.fullmatch(length) and int(length) > self._calls.body_limit:
            raise self._too_large()
        body = bytearray()
        self._reading = True
        more = True
        while more:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            self._held += len(piece)
            self._calls.bytes_held += len(piece)
            body += piece
            if len(body) > self._calls.body_limit:
                raise self._too_large()
            if self._calls.bytes_room < 0 and self._held >= LARGE:  # queries are answered all the same
                raise Problem(
                    429,
                    "Too many large requests at once",
                    code="queue_full",
                    retry_after=RETRY_AFTER_S,
                    close=True,
                )
            more = message.get("more_body", False)
        self._reading = False
        return bytes(body)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"The body is larger than {self._calls.settings.max_body_mib:g} MiB; send fewer texts at once",
            code="body_too_large",
            close=True,
        )

    def _ended(self) -> Exception:
        if self._why == "gone":
            return ClientGone()
        if self._why == "stopped":
            return Problem(
                503, "The gateway is being stopped", code="stopping", retry_after=RETRY_AFTER_S, close=True
            )
        if self._reading:
            return Problem(
                408, f"The body did not arrive within {self._seconds:g} s", code="timeout", close=True
            )
        return Problem(504, f"No answer within the deadline of {self._seconds:g} s", code="timeout")


def _deadline(asked: str | None, longest: float) -> float:
    if asked is None:
        return longest
    if not _NUMBER.fullmatch(asked) or int(asked) == 0:
        raise Problem(
            400,
            f"{DEADLINE_HEADER} must be a whole number of milliseconds above 0",
            code="invalid_header",
            param=DEADLINE_HEADER,
        )
    return min(longest, int(asked) / 1e3)
