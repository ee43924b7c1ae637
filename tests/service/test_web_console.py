"""The console in a browser: who is let in, what the browser shows, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from embedctl.cli.entry import main
from embedctl.errors import UsageError
from embedctl.web.server import WebServer
from tests.support.browser import browser, find_chromium
from tests.support.control import served
from tests.support.fake_engine import FakeEngine

COMMAND = [sys.executable, "-m", "embedctl", "console"]


@contextmanager
def web_server() -> Iterator[str]:
    """The address that is printed; in the end no console may be left."""
    stop, listening, said = threading.Event(), threading.Event(), []

    def say(text: str) -> None:
        said.append(text)
        listening.set()

    thread = threading.Thread(target=WebServer(COMMAND, port=0).run, args=(stop, say))
    thread.start()
    try:
        assert listening.wait(20.0)
        yield said[0].removeprefix("open ")
    finally:
        stop.set()
        thread.join(20.0)
    assert not thread.is_alive()
    assert [child for child in psutil.Process().children() if child.cmdline() == COMMAND] == []


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with web_server() as address:
        yield address


REFUSED = {
    "no key": ({}, ""),
    "another key": ({}, "?key=abc"),
    "another server's cookie": ({"Cookie": "embedctl-1={key}"}, ""),
    "a wrong cookie": ({"Cookie": "embedctl-{port}=abc"}, ""),
    "a name that was made to mean loopback": ({"Host": "rebound.example:{port}"}, "?key={key}"),
    "a name that begins like loopback": ({"Host": "127.0.0.1.rebound.example"}, "?key={key}"),
    "a name with a user in it": ({"Host": "rebound.example@127.0.0.1:{port}"}, "?key={key}"),
    "another page": ({"Origin": "https://elsewhere.example"}, "?key={key}"),
    "a page of another port": ({"Origin": "http://127.0.0.1:1"}, "?key={key}"),
    "no page": ({"Origin": "null"}, "?key={key}"),
}


@pytest.mark.parametrize("path", ["/", "/ws", "/static/js/textual.js"])
@pytest.mark.parametrize("case", list(REFUSED))
async def test_who_may_not_come_in_is_refused_everywhere(address: str, case: str, path: str) -> None:
    base, _, key = address.partition("/?key=")
    given, query = REFUSED[case]
    port = base.rpartition(":")[2]
    headers = {name: value.format(key=key, port=port) for name, value in given.items()}
    async with aiohttp.ClientSession() as session:
        url = f"{base}{path}{query.format(key=key)}"
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 403
            assert answer.content_type == "text/plain"
            assert not answer.cookies


async def test_the_key_opens_the_door_and_is_gone_from_the_address(address: str) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(address) as answer:
            text = await answer.text()
            assert (answer.status, answer.url.query_string) == (200, "")
            (cookie,) = answer.history[0].cookies.values()
            assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
            policy = answer.headers["Content-Security-Policy"]
        elsewhere = address.replace("/?key=", "//elsewhere.example/?key=")
        async with session.get(elsewhere, allow_redirects=False) as other:
            assert other.headers["Location"] == "/"
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert f'data-session-websocket-url="ws://{answer.url.authority}/ws"' in text
        assert "https://" not in text  # nothing comes from elsewhere
        for path in ("/static/js/textual.js", "/static/css/xterm.css"):
            async with session.get(answer.url.with_path(path)) as part:
                assert part.status == 200 and path in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "my-machine"])
def test_other_machines_are_told_to_come_through_ssh(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        WebServer(COMMAND, host=host)
    assert "other machines" in caught.value.why
    assert "ssh -L 11436:127.0.0.1:11436" in caught.value.remedy


def test_a_port_that_is_taken_is_told(address: str) -> None:
    port = int(address.rpartition(":")[2].partition("/")[0])
    with pytest.raises(UsageError, match=f"cannot be served on 127.0.0.1:{port}") as caught:
        WebServer(COMMAND, port=port).run(threading.Event(), print)
    assert "in use" in caught.value.why and "--port" in caught.value.remedy


def test_without_the_extra_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual_serve", None)
    assert main(["web"]) == 2
    said = capsys.readouterr().err
    assert "textual_serve is missing" in said and "pip install 'embedctl[web]'" in said


async def test_a_page_gets_a_console_that_ends_with_the_server(home: Path) -> None:
    with served(FakeEngine(), home), web_server() as address:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(address) as answer:
                socket = answer.url.with_path("/ws")
            async with session.ws_connect(f"{socket}?width=100&height=30") as page:
                seen = b""
                async with asyncio.timeout(20.0):
                    while b"native" not in seen:
                        message = await page.receive()
                        assert message.type is aiohttp.WSMsgType.BINARY, message
                        seen += message.data


def test_a_console_ends_when_the_server_of_its_page_was_killed(home: Path) -> None:
    environment = {**os.environ, "TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver"}
    with served(FakeEngine(), home):
        console = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        assert console.stdin is not None and console.stdout is not None
        while b"native" not in (line := console.stdout.read1()):
            assert line, "it ended by itself"
        console.stdin.close()
        console.stdout.close()
        assert console.wait(20.0) == 128 + signal.SIGHUP


@pytest.mark.skipif(find_chromium() is None, reason="there is no chromium")
async def test_a_browser_shows_the_dashboard_and_its_keys_arrive(home: Path, tmp_path: Path) -> None:
    with served(FakeEngine(), home), web_server() as address:
        async with browser(tmp_path / "profile") as tab:
            await tab.open(address)
            await tab.until("1 Dashboard", "native", "ollama", "Memory pool")
            await tab.press("2")
            await tab.until("tokenizer.json", "✓ verified")
            assert await tab.location() == address.partition("?")[0]
            assert tab.refused == []
            await tab.press("q")
            await tab.until_page("The console has ended. Open it again")
