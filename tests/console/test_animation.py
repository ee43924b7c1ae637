"""The tour's file: at every moment it shows the lines of the frame whose time it is, and keeps each once."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from embedctl_console.paint import cells_of
from tests.support.animation import CELL_H, Frame, animated

_SVG = "{http://www.w3.org/2000/svg}"
_STEP = re.compile(r"([\d.]+)%\{visibility:(\w+)\}")


def frame(*lines: str, caption: str, seconds: float) -> Frame:
    style = Style.parse("bold #aabbcc on #102030")
    return Frame([cells_of(Strip([Segment(line, style)]), 20) for line in lines], caption, seconds)


FRAMES = [
    frame("same", "first & <last>", caption="one", seconds=2),
    frame("same", "second", caption="one", seconds=1),
    frame("same", "second", caption="one", seconds=1),  # nothing new
    frame("same", "first & <last>", caption="two", seconds=4),
]


def shown_at(svg: str, share: float) -> list[str]:
    """The texts that stand on the screen at this part of the whole time, from top to bottom."""
    root = ElementTree.fromstring(svg)
    names = {group.get("id"): group for group in root.iter(f"{_SVG}g") if group.get("id")}
    style = "".join(element.text or "" for element in root.iter(f"{_SVG}style"))
    texts = {}
    for group in root.iter(f"{_SVG}g"):
        if not (group.get("class") or "").startswith("f"):
            continue
        name = (group.get("style") or "").removeprefix("animation-name:")
        (steps,) = re.findall(rf"@keyframes {name}\{{(.*)\}}\n", style)
        visible = [how for at, how in _STEP.findall(steps) if float(at) / 100 <= share][-1]
        if visible == "visible":
            for use in group.iter(f"{_SVG}use"):
                drawn = names[(use.get("href") or "")[1:]]
                texts[float(use.get("y") or 0)] = "".join(t.text or "" for t in drawn.iter(f"{_SVG}text"))
    return [texts[y] for y in sorted(texts)]


def test_each_moment_shows_its_frame() -> None:
    svg = animated(FRAMES, "a tour & more")
    assert shown_at(svg, 0.0) == shown_at(svg, 0.24) == ["same", "first & <last>", "one"]
    assert shown_at(svg, 0.26) == shown_at(svg, 0.49) == ["same", "second", "one"]
    assert shown_at(svg, 0.51) == shown_at(svg, 0.99) == ["same", "first & <last>", "two"]


def test_what_frames_share_is_kept_once() -> None:
    svg = animated(FRAMES, "a tour")
    assert svg.count(">same<") == svg.count(">first &amp; &lt;last&gt;<") == svg.count(">second<") == 1
    assert svg.count("fill:#102030") == 1
    assert f'y="{2.5 * CELL_H:g}"' in svg, "the caption stands apart from the screen"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|url\(", svg)
