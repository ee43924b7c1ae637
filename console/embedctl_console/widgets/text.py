"""Text that is redrawn only when it has changed, and small pieces of it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Final, Self

from rich.cells import cell_len
from textual.content import Content
from textual.geometry import Region
from textual.widgets import Static

from embedctl.format import format_duration

_BARS: Final = {"braille": ("━", "╸", "─"), "block": ("█", "▌", "░"), "ascii": ("#", "#", "-")}
"""By charset: full, half, empty."""

_HEIGHTS: Final = "▁▂▃▄▅▆▇█"
_ASCII_HEIGHTS: Final = "_.-=*#"


class Text(Static):
    """A `Static` for content that arrives often and seldom differs: only cells that changed are repainted.

    On a slow line that matters: a card repainted whole is 2 KB, and there are two a second of each.
    """

    _shown: Content | None = None
    _repaint: tuple[Region, ...] = ()
    """What the next refresh is confined to; empty: no confinement."""

    def show(self, content: Content | str) -> None:
        """Replace the text. A layout follows only where the number of lines or the width has changed."""
        content = Content(content) if isinstance(content, str) else content
        before, self._shown = self._shown, content
        if before is None or _size(before) != _size(content):
            self.update(content)
        elif not before.is_same(content):
            # Textual counts a refresh's regions from the content's corner, so borders need no thought here.
            self._repaint = changed_regions(before, content, self.content_size.width)
            self.update(content, layout=False)

    def refresh(
        self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False
    ) -> Self:
        """As every widget's, confined to what `show` has changed."""
        if not regions and not layout:
            regions, self._repaint = self._repaint, ()
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


def _size(content: Content) -> tuple[int, int]:
    lines = content.plain.split("\n")
    return len(lines), max(map(len, lines))


def changed_regions(before: Content, after: Content, width: int) -> tuple[Region, ...]:
    """The cells in which two texts of equally many lines differ; none if that cannot be told (lines wrap)."""
    # Blank last lines count: without `allow_blank` they are dropped, and only from the text that has them.
    texts = (before.split("\n", allow_blank=True), after.split("\n", allow_blank=True))
    lines = list(zip(*texts, strict=True))
    if any(max(old.cell_length, new.cell_length) > width for old, new in lines):
        return ()
    regions = []
    for y, (old, new) in enumerate(lines):
        if old.is_same(new):
            continue
        same = _common(old.plain, new.plain)
        begin = cell_len(old.plain[:same]) if old[:same].is_same(new[:same]) else 0
        regions.append(Region(begin, y, max(old.cell_length, new.cell_length) - begin, 1))
    return tuple(regions)


def _common(a: str, b: str) -> int:
    """How many characters at their begin two strings have in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def bar(share: float | None, width: int, charset: str = "braille") -> Content:
    """A progress bar of `width` cells; an unknown share gives an empty one."""
    full, half, empty = _BARS[charset]
    halves = round(min(1.0, max(0.0, share or 0.0)) * width * 2)
    if share is not None and share < 1 and halves == width * 2:
        halves -= 1  # what is not done does not look done
    done = full * (halves // 2) + half * (halves % 2)
    return Content.assemble((done, "$primary"), (empty * (width - len(done)), "$text-muted 40%"))


def spark(values: Iterable[float], charset: str = "braille") -> str:
    """One character per value, the higher the greater; a space where there is none (NaN).

    It is the course that shows, not the size; but what moves by less than a quarter looks flat.
    """
    values = list(values)
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return " " * len(values)
    levels = _ASCII_HEIGHTS if charset == "ascii" else _HEIGHTS
    low, high = min(known), max(known)
    spread = max(high - low, high / 4)
    base = (low + high - spread) / 2
    step = spread / (len(levels) - 1) or 1.0
    return "".join(" " if math.isnan(value) else levels[round((value - base) / step)] for value in values)


def spread(left: Content, right: Content, width: int) -> Content:
    """`left` and `right` at the two ends of a line; `left` is cut when both do not fit."""
    room = width - right.cell_length - 1
    if left.cell_length > room:
        left = left.truncate(max(0, room), ellipsis=True)
    return Content.assemble(left, " " * max(1, width - left.cell_length - right.cell_length), right)


def joined(parts: list[Content], separator: str = " · ") -> Content:
    """Parts on one line; empty ones are left out."""
    return Content.from_text(separator).join([part for part in parts if part.plain])


def keyed(name: str, words: str, key: str) -> Content:
    """A key's name, standing out, and what it does; a click on them presses `key`, as Textual names it.

    The widget that shows it has `auto_links` off, else it looks like a link.
    """
    content = Content.assemble((name, "bold $footer-key-foreground"), " ", (words, "$foreground"))
    return content.stylize(f"@click=app.simulate_key({key!r})")


def hanging(head: Content, text: str, width: int, style: str = "") -> Content:
    """`text` after `head`, its further lines indented as far as `head` is long."""
    indent = head.cell_length
    lines = textwrap.wrap(text, max(20, width - indent)) or [""]
    return Content.assemble(head, (f"\n{' ' * indent}".join(lines), style))


def busy_text(words: str, passed: float, key: str) -> Content:
    """What runs, for how many seconds (from one on), and the key that stops it."""
    time = f" · {format_duration(passed)}" if passed >= 1 else ""
    return Content.assemble(
        ("▸ ", "$text-accent"), words, time, " · ", (key, "bold $footer-key-foreground"), " stops"
    )


def failure_text(what: str, why: str = "", remedy: str = "") -> Content:
    """What went wrong, why, and what to do, a line each."""
    rows = [Content.assemble(("✗ ", "$text-error"), (what, "bold"))]
    rows += [Content(why)] if why else []
    rows += [Content.assemble(("→ ", "$text-accent"), remedy)] if remedy else []
    return Content("\n").join(rows)
