"""What a terminal shows of the little that the console sends: text, places, colours, erased ends of lines."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder

from rich.cells import get_character_cell_size

_SEQUENCE = re.compile(
    r"\x1b(?:\[(?P<given>[<-?]*[0-9;]*)[ -/]*(?P<end>[@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[\]])"
)


class Grid:
    """Cells as (text, SGR numbers in force); a wide character's second cell is an empty text."""

    def __init__(self, columns: int, rows: int) -> None:
        self.cells = [[(" ", "")] * columns for _ in range(rows)]
        self._x = self._y = 0
        self._pen = ""
        self._decode = getincrementaldecoder("utf-8")().decode
        self._rest = ""

    @property
    def text(self) -> str:
        return "\n".join("".join(text for text, _ in line).rstrip() for line in self.cells)

    def feed(self, data: bytes) -> None:
        text = self._rest + self._decode(data)
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = _SEQUENCE.match(text, at)
                if match is None:  # the rest is still to come
                    break
                self._control(match["end"], match["given"] or "")
                at = match.end()
            else:
                self._put(text[at])
                at += 1
        self._rest = text[at:]

    def _control(self, end: str | None, given: str) -> None:
        if end == "H":
            row, _, column = given.partition(";")
            self._y, self._x = int(row or 1) - 1, int(column or 1) - 1
        elif end == "K":
            line = self.cells[self._y]
            line[self._x :] = [(" ", self._pen)] * (len(line) - self._x)
        elif end == "m":
            numbers = given.split(";")
            self._pen = (
                ";".join(numbers[1:]) if numbers[0] in ("", "0") else f"{self._pen};{given}".strip(";")
            )

    def _put(self, character: str) -> None:
        if character == "\n":
            self._x, self._y = 0, self._y + 1
            if self._y == len(self.cells):
                self.cells = [*self.cells[1:], [(" ", self._pen)] * len(self.cells[0])]
                self._y -= 1
        elif character >= " " and (line := self.cells[self._y]):
            size = get_character_cell_size(character)
            if size == 0 and self._x:
                line[self._x - 1] = (line[self._x - 1][0] + character, self._pen)
            for x, text in zip(range(self._x, len(line)), [character, ""][:size], strict=False):
                line[x] = (text, self._pen)
            self._x += size
