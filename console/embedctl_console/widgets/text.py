"""Text that is redrawn only when it has changed, and small pieces of it."""

from __future__ import annotations

from typing import Final

from textual.content import Content
from textual.widgets import Static

_BARS: Final = {"braille": ("━", "╸", "─"), "block": ("█", "▌", "░"), "ascii": ("#", "#", "-")}
"""By charset: full, half, empty."""


class Text(Static):
    """A `Static` for content that arrives often and seldom differs."""

    _shown: Content | None = None

    def show(self, content: Content | str) -> None:
        """Replace the text. A layout follows only where the number of lines or the width matters."""
        content = Content(content) if isinstance(content, str) else content
        before = self._shown
        if before is not None and before.is_same(content):
            return
        self._shown = content
        same_size = before is not None and _size(before) == _size(content)
        self.update(content, layout=not same_size)


def _size(content: Content) -> tuple[int, int]:
    lines = content.plain.split("\n")
    return len(lines), max(map(len, lines))


def bar(share: float | None, width: int, charset: str = "braille") -> Content:
    """A progress bar of `width` cells; an unknown share gives an empty one."""
    full, half, empty = _BARS[charset]
    halves = round(min(1.0, max(0.0, share or 0.0)) * width * 2)
    if share is not None and share < 1 and halves == width * 2:
        halves -= 1  # what is not done does not look done
    done = full * (halves // 2) + half * (halves % 2)
    return Content.assemble((done, "$primary"), (empty * (width - len(done)), "$text-muted 40%"))


def spread(left: Content, right: Content, width: int) -> Content:
    """`left` and `right` at the two ends of a line; `left` is cut when both do not fit."""
    room = width - right.cell_length - 1
    if left.cell_length > room:
        left = left.truncate(max(0, room), ellipsis=True)
    return Content.assemble(left, " " * max(1, width - left.cell_length - right.cell_length), right)


def joined(parts: list[Content], separator: str = " · ") -> Content:
    """Parts on one line; empty ones are left out."""
    return Content.from_text(separator).join([part for part in parts if part.plain])
