"""A screen's picture as SVG and PNG. Its fonts are brought along: a server has none, and few have braille."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.segment import Segment, Segments
from textual.strip import Strip

from embedctl.errors import EmbedctlError

_FONTS: Final = Path(__file__).parent / "fonts"
_FAMILY: Final = "Embedctl Mono"


def svg_of(strips: Sequence[Strip], title: str) -> str:
    """[slow] The lines of a screen, as `App.export_screenshot` draws them on the event loop."""
    width = max(strip.cell_length for strip in strips)
    console = Console(
        width=width,
        height=len(strips),
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        record=True,
        legacy_windows=False,
        safe_box=False,
    )
    lines = ((*strip, Segment.line()) for strip in strips)
    console.print(Segments([*chain.from_iterable(lines)][:-1]))
    return console.export_svg(title=title)


def png_of(svg: str) -> bytes:
    """[slow] What `svg_of` gave, drawn in the size that it names.

    Fonts of the machine stand in for characters that ours lack, such as Chinese ones.

    Raises:
        EmbedctlError: It could not be drawn.
    """
    import resvg_py

    # Textual sets lines of 1.22 em in a font of another shape: at this size ours fills them edge to edge.
    fitted = svg.replace("font-size: 20px", "font-size: 20.96px").replace(
        "font-family: arial", f"font-family: {_FAMILY}"
    )
    try:
        return resvg_py.svg_to_bytes(
            svg_string=fitted,
            font_family=_FAMILY,
            monospace_family=_FAMILY,
            font_files=[str(path) for path in sorted(_FONTS.glob("*.ttf"))],
        )
    except ValueError as error:
        raise EmbedctlError(
            "The picture could not be drawn", why=str(error), remedy="export it as SVG"
        ) from error
