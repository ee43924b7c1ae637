"""The one page: textual-serve's terminal over the whole window, and what is shown before and after it."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Final

_PAGE: Final = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>$title</title>
<link rel="stylesheet" href="/static/css/xterm.css">
<script src="/static/js/textual.js"></script>
<script src="/keys.js"></script>
<style>
@font-face {
  font-family: "Roboto Mono";
  src: url("/static/fonts/RobotoMono-VariableFont_wght.ttf");
  font-weight: 100 700;
}
html, body { margin: 0; height: 100%; overflow: hidden; background: #10141a; color: #d5dae1; }
#terminal { position: fixed; inset: 0; }
/* Shown from the start, so that the font is there when the terminal measures its cells. */
p { position: fixed; inset: 0; margin: 0; z-index: 10; padding-top: 40vh; text-align: center;
    font: 16px "Roboto Mono", monospace; background: #10141a; }
a { color: #7fb4ff; }
#ended, .-first-byte #opening, .-closed #opening { display: none; }
.-closed #ended { display: block; }
</style>
</head>
<body>
<p id="opening">opening $title…</p>
<p id="ended">The console has ended. <a href="/">Open it again</a></p>
<div id="terminal" class="textual-terminal" data-font-size="15"
  data-session-websocket-url="ws://$host/ws"></div>
</body>
</html>
""")


KEYS_SCRIPT: Final = """
// The terminal does not take the keys by itself.
addEventListener("load", () => document.querySelector(".xterm-helper-textarea").focus());
"""


def page(title: str, host: str) -> str:
    """The page as HTML.

    Args:
        host: What the browser calls this server, port included; through a tunnel not what it listens on.
    """
    return _PAGE.substitute(title=escape(title), host=escape(host))
