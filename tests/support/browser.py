"""A headless Chromium, driven over its DevTools protocol: what a page's terminal shows, and keys for it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--remote-debugging-port=0",
    "--window-size=1200,700",
)  # fmt: skip
_KEEP_TERMINAL = """
Object.defineProperty(Object.prototype, "_core", {configurable: true, set(core) {
  window.kept ??= this;
  Object.defineProperty(this, "_core", {value: core, writable: true});
}});
"""
"""xterm.js draws on a canvas, where nobody can read, and its page keeps the terminal to itself: the first
object that is given a `_core` is the terminal, whose lines can be read."""
_LINES = """
window.kept ? Array.from({length: kept.rows}, (_, row) =>
  kept.buffer.active.getLine(row).translateToString(true)).join("\\n") : ""
"""


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Tab:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self.refused: list[str] = []
        """What the page's own policy kept it from loading."""

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=20.0)
            if message.get("method") == "Log.entryAdded" and "Content Security" in json.dumps(message):
                self.refused.append(message["params"]["entry"]["text"])
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return dict(message["result"])

    async def value(self, expression: str) -> str:
        answer = await self.call("Runtime.evaluate", expression=expression)
        return str(answer["result"].get("value", answer))

    async def open(self, url: str) -> None:
        await self.call("Log.enable")
        await self.call("Page.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_KEEP_TERMINAL)
        await self.call("Page.navigate", url=url)

    async def press(self, key: str) -> None:
        """Press and release the key of one printable character."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key)

    async def location(self) -> str:
        return await self.value("location.href")

    async def until(self, *texts: str) -> None:
        """Wait until the page's terminal shows all of `texts`."""
        await self._until(_LINES, texts)

    async def until_page(self, *texts: str) -> None:
        """Wait until the page itself shows all of `texts`."""
        await self._until("document.body.innerText", texts)

    async def _until(self, expression: str, texts: tuple[str, ...]) -> None:
        deadline = time.monotonic() + 20.0
        while missing := [text for text in texts if text not in (shown := await self.value(expression))]:
            assert time.monotonic() < deadline, f"{missing} did not appear:\n{shown}"
            await asyncio.sleep(0.05)  # another program's screen cannot be waited for in any other way


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Tab]:
    """A browser with an empty profile, and its one tab."""
    chromium = find_chromium()
    assert chromium is not None
    process = subprocess.Popen(
        [chromium, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        async with aiohttp.ClientSession() as session:
            address = await _tab(session, profile / "DevToolsActivePort")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        process.wait(20.0)


async def _tab(session: aiohttp.ClientSession, port_file: Path) -> str:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if port_file.exists() and (lines := port_file.read_text().splitlines()):
            async with session.get(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                pages = [tab for tab in await answer.json() if tab["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        await asyncio.sleep(0.05)
    raise AssertionError("the browser did not start")
