"""A screen's picture as PNG. Its fonts are brought along: a server has none, and few have braille."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from embedctl.errors import EmbedctlError

_FONTS: Final = Path(__file__).parent / "fonts"
_FAMILY: Final = "Embedctl Mono"


def png_of(svg: str) -> bytes:
    """[slow] What `App.export_screenshot` gave, drawn in the size that it names.

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
