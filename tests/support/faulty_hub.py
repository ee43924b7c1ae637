"""The demo's Hub with faults that a test orders, and a log of what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from embedctl.demo.hub_server import HubRequestHandler, HubServer, ServedFile


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Refusal:
    """Answer requests whose path contains `where` with an error, `times` times."""

    where: str
    status: int
    code: str = ""
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    times: int = 1_000_000


class FaultyHub(HubServer):
    """Faults are ordered by setting attributes before or between requests.

    Attributes:
        cut_after: Close the connection after so many bytes of a file (by path), once per entry.
        damage: Paths whose content arrives with its last byte flipped, and how many times.
        stall: Paths that send one block and then nothing until `go_on` is set.
        refusals: Errors to answer with.
        ignore_range: Answer a range request with the whole file, as some proxies do.
    """

    def __init__(self, repos: dict[str, Path], revision: str | None = None) -> None:
        super().__init__(repos, **({"revision": revision} if revision else {}))
        self.seen: list[Seen] = []
        self.sent: dict[str, int] = {}
        self.cut_after: dict[str, int] = {}
        self.damage: dict[str, int] = {}
        self.stall: set[str] = set()
        self.refusals: list[Refusal] = []
        self.ignore_range = False
        self.go_on = threading.Event()

    def stop(self) -> None:
        self.go_on.set()
        super().stop()

    def requests_for(self, part: str, method: str = "GET") -> list[Seen]:
        return [seen for seen in self.seen if part in seen.path and seen.method == method]

    def answer(self, request: HubRequestHandler) -> None:
        headers = request.headers
        self.seen.append(
            Seen(request.command, request.path, headers.get("Range"), headers.get("Authorization"))
        )
        for refusal in self.refusals:
            if refusal.where in request.path and refusal.times > 0:
                refusal.times -= 1
                return request.fail(
                    refusal.status,
                    refusal.code,
                    refusal.message,
                    **{name.replace("-", "_"): value for name, value in refusal.headers},
                )
        if self.ignore_range:
            del headers["Range"]
        return super().answer(request)

    def blocks(self, file: ServedFile, start: int) -> Iterator[bytes]:
        left = self.cut_after.pop(file.path, None)
        flip = self.damage.get(file.path, 0) > 0
        if flip:
            self.damage[file.path] -= 1
        for block in super().blocks(file, start):
            if left is not None and len(block) > left:
                yield from self._counted(file, block[:left])
                raise ConnectionResetError("cut as ordered")
            if left is not None:
                left -= len(block)
            start += len(block)
            if flip and start == file.size:
                block = block[:-1] + bytes([block[-1] ^ 0xFF])
            yield from self._counted(file, block)
            if file.path in self.stall:
                self.go_on.wait()

    def _counted(self, file: ServedFile, block: bytes) -> Iterator[bytes]:
        self.sent[file.path] = self.sent.get(file.path, 0) + len(block)
        yield block
