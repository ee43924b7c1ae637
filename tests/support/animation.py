"""Frames of a terminal as one animated SVG, which a forge shows on its page: no script, no font of its own.

A line that several frames share is kept once, and what stays for some frames is shown for their whole time:
the file grows with what changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from embedctl_console.paint import Cell

if TYPE_CHECKING:
    from rich.color import Color
    from rich.style import Style

CELL_W, CELL_H, MARGIN = 8.4, 18, 12
_BASELINE: Final = 13.5
_FOREGROUND, _BACKGROUND, _CAPTION = "#d5dae1", "#10151b", "#f2c14e"
_HEAD: Final = """<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}"
 viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">
<style>
text{{font:14px "DejaVu Sans Mono",Menlo,Consolas,monospace;white-space:pre;fill:{foreground}}}
.f{{visibility:hidden;animation:{seconds:g}s step-end infinite}}
{styles}{keyframes}@media (prefers-reduced-motion:reduce){{.f{{animation:none}}.s{{visibility:visible}}}}
</style>
<rect width="100%" height="100%" rx="8" fill="{background}"/>
"""


@dataclass(frozen=True)
class Frame:
    lines: Sequence[Sequence[Cell]]
    caption: str
    seconds: float


def animated(frames: Sequence[Frame], title: str) -> str:
    """The SVG; it begins again at its end. Who wants no motion is shown the last frame.

    All frames have the same number of lines, of the same width.
    """
    frames = _without_repeats(frames)
    columns, rows = len(frames[0].lines[0]), len(frames[0].lines)
    total = sum(frame.seconds for frame in frames)
    begins = [sum(frame.seconds for frame in frames[:n]) for n in range(len(frames) + 1)]
    drawing = _Drawing()
    shown: dict[tuple[int, int], list[str]] = {}
    """By the first frame and the one after the last: what stands on the screen from the one to the other."""
    for y in range(rows + 1):
        number = 0
        contents = [drawing.line(f.lines[y]) if y < rows else drawing.caption(f.caption) for f in frames]
        for content, same in groupby(contents):
            count = len(list(same))
            if content:
                place = f'<use href="#{content}" y="{y * CELL_H + (CELL_H / 2 if y == rows else 0):g}"/>'
                shown.setdefault((number, number + count), []).append(place)
            number += count
    groups, keyframes = [], []
    for n, ((first, after), uses) in enumerate(sorted(shown.items())):
        keyframes.append(_keyframes(n, begins[first] / total, begins[after] / total))
        still = " s" if after == len(frames) else ""
        groups.append(f'<g class="f{still}" style="animation-name:k{n}">{"".join(uses)}</g>\n')
    head = _HEAD.format(
        width=columns * CELL_W + 2 * MARGIN, height=(rows + 2) * CELL_H + 2 * MARGIN, title=escape(title),
        seconds=total, foreground=_FOREGROUND, background=_BACKGROUND,
        styles=drawing.styles, keyframes="".join(keyframes),
    )  # fmt: skip
    moved = f'<g transform="translate({MARGIN},{MARGIN})">\n'
    return f"{head}<defs>\n{drawing.definitions}</defs>\n{moved}{''.join(groups)}</g>\n</svg>\n"


def _without_repeats(frames: Sequence[Frame]) -> list[Frame]:
    kept: list[Frame] = []
    for frame in frames:
        if kept and (kept[-1].lines, kept[-1].caption) == (frame.lines, frame.caption):
            kept[-1] = Frame(frame.lines, frame.caption, kept[-1].seconds + frame.seconds)
        else:
            kept.append(frame)
    return kept


def _keyframes(number: int, begin: float, end: float) -> str:
    steps = [(begin, "visible"), *([(end, "hidden")] if end < 1 else [])]
    if begin > 0:
        steps.insert(0, (0.0, "hidden"))
    return f"@keyframes k{number}{{{''.join(f'{at:.3%}{{visibility:{how}}}' for at, how in steps)}}}\n"


class _Drawing:
    """What is kept once: lines and classes of style."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {"": ""}
        self._classes: dict[str, str] = {}

    @property
    def definitions(self) -> str:
        return "".join(f'<g id="{name}">{drawn}</g>\n' for drawn, name in self._lines.items() if drawn)

    @property
    def styles(self) -> str:
        return "".join(f".{name}{{{style}}}\n" for style, name in self._classes.items())

    def line(self, cells: Sequence[Cell]) -> str:
        """The id of a line; empty if there is nothing on it."""
        grounds, texts, x = [], [], 0
        for ground, run in groupby(cells, key=lambda cell: _ground(cell[1])):
            width = len(list(run))
            if ground != _BACKGROUND:
                # A little higher than its line, so that no seam is seen between two of them.
                place = f'x="{x * CELL_W:g}" width="{width * CELL_W:g}" height="{CELL_H + 0.4:g}"'
                grounds.append(f'<rect {place} class="{self._class(f"fill:{ground}")}"/>')
            x += width
        x = 0
        for look, group in groupby(cells, key=lambda cell: _look(cell[1])):
            run = list(group)
            texts += self._text("".join(text for text, _ in run), look, x, len(run))
            x += len(run)
        return self._kept("".join((*grounds, *texts)))

    def caption(self, text: str) -> str:
        return self._kept("".join(self._text(text, f"fill:{_CAPTION};font-weight:bold", 0, len(text))))

    def _text(self, text: str, look: str, x: int, width: int) -> Iterable[str]:
        if not text.strip():
            return
        before, after = len(text) - len(text.lstrip()), len(text) - len(text.rstrip())
        x, width = x + before, width - before - after
        style = f' class="{self._class(look)}"' if look else ""
        place = f'x="{x * CELL_W:g}" y="{_BASELINE}" textLength="{width * CELL_W:g}"'
        yield f"<text {place}{style}>{escape(text.strip())}</text>"

    def _kept(self, drawn: str) -> str:
        return self._lines.setdefault(drawn, f"l{len(self._lines)}")

    def _class(self, style: str) -> str:
        return self._classes.setdefault(style, f"c{len(self._classes)}")


def _ground(style: Style | None) -> str:
    if style is None:
        return _BACKGROUND
    return _hex(style.color, _FOREGROUND) if style.reverse else _hex(style.bgcolor, _BACKGROUND)


def _look(style: Style | None) -> str:
    """How text is drawn, as CSS; empty for plain text."""
    if style is None:
        return ""
    colour = _hex(style.bgcolor, _BACKGROUND) if style.reverse else _hex(style.color, _FOREGROUND)
    parts = {
        f"fill:{colour}": colour != _FOREGROUND,
        "font-weight:bold": style.bold,
        "font-style:italic": style.italic,
        "text-decoration:underline": style.underline,
        "opacity:.6": style.dim,
    }
    return ";".join(part for part, wanted in parts.items() if wanted)


def _hex(colour: Color | None, default: str) -> str:
    return default if colour is None or colour.is_default else colour.get_truecolor().hex
