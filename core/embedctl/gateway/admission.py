"""Who may go to the backend now, who waits, and who is refused."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from embedctl.gateway.problems import RETRY_AFTER_S, Problem

QUERY_TEXTS: Final = 4
"""A request of no more texts is a query: somebody waits for it. A larger one is a part of a bulk job."""
_QUERIES_FIRST: Final = 8
"""So many waiting queries go before the next waiting bulk request."""


@dataclass(slots=True)
class _Waiting:
    texts: int
    admitted: asyncio.Future[None]


class Admission:
    """Counts what is in flight and lets the next one in. Lives on one event loop; not thread-safe.

    Queries wait only for other queries: bulk requests leave a quarter of the places free, and where both
    wait, queries go first, in turns, so that neither starves.

    Args:
        places: Requests in flight at once.
        texts: Texts in flight at once; one request that has more may go alone.
        waiting: Requests that may wait.
    """

    def __init__(self, *, places: int, texts: int, waiting: int) -> None:
        self._places = places
        self._bulk_places = max(1, places - max(1, places // 4))
        self._most_texts = texts
        self._most_waiting = waiting
        self._queries: deque[_Waiting] = deque()
        self._bulk: deque[_Waiting] = deque()
        self._queries_in_a_row = 0
        self._bulk_in_flight = 0
        self.in_flight = 0
        self.texts_in_flight = 0

    @property
    def waiting(self) -> int:
        return len(self._queries) + len(self._bulk)

    async def enter(self, texts: int) -> None:
        """Return once a request of so many texts may go; then `leave` must be called.

        Raises:
            Problem: 429, too many wait already.
        """
        lane = self._queries if texts <= QUERY_TEXTS else self._bulk
        if not lane and self._fits(texts):
            self._take(texts)
            return
        if self.waiting >= self._most_waiting:
            raise Problem(
                429,
                f"Too many requests: {self.in_flight} are being answered and {self.waiting} wait",
                code="queue_full",
                retry_after=RETRY_AFTER_S,
            )
        place = _Waiting(texts, asyncio.get_running_loop().create_future())
        lane.append(place)
        try:
            await place.admitted
        except asyncio.CancelledError:
            if place.admitted.done() and not place.admitted.cancelled():
                self.leave(texts)  # let in at the very moment when the caller gave up
            else:
                lane.remove(place)
                self._let_in()  # what stood behind a large request may fit
            raise

    def leave(self, texts: int) -> None:
        """A request of so many texts is done."""
        self.in_flight -= 1
        self.texts_in_flight -= texts
        self._bulk_in_flight -= texts > QUERY_TEXTS
        self._let_in()

    def _fits(self, texts: int) -> bool:
        if self.in_flight >= self._places:
            return False
        if texts <= QUERY_TEXTS:
            return True
        if self._bulk_in_flight >= self._bulk_places:
            return False
        return self._bulk_in_flight == 0 or self.texts_in_flight + texts <= self._most_texts

    def _take(self, texts: int) -> None:
        self.in_flight += 1
        self.texts_in_flight += texts
        self._bulk_in_flight += texts > QUERY_TEXTS

    def _let_in(self) -> None:
        while lane := self._next_lane():
            place = lane[0]
            if place.admitted.done():  # its caller has given up; it takes itself off and comes back here
                return
            lane.popleft()
            self._queries_in_a_row = self._queries_in_a_row + 1 if lane is self._queries else 0
            self._take(place.texts)
            place.admitted.set_result(None)

    def _next_lane(self) -> deque[_Waiting] | None:
        query = bool(self._queries) and self._fits(self._queries[0].texts)
        bulk = bool(self._bulk) and self._fits(self._bulk[0].texts)
        if bulk and (not query or self._queries_in_a_row >= _QUERIES_FIRST):
            return self._bulk
        return self._queries if query else None
