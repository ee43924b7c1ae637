"""The forms of OLLAMA_HOST, server versions, and connections that can be cut."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import httpx
import pytest

from embedctl.backends.ollama.host import find_host, is_local
from embedctl.backends.ollama.http import Aborted, Connection
from embedctl.backends.ollama.versions import KNOWN_FAULTS, faults_of, parse_version, too_old
from embedctl.errors import SettingsError
from tests.support import ollama_faults as faults
from tests.support.ollama_faults import running_ollama


@pytest.mark.parametrize(
    "value,url",
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":1234", "http://127.0.0.1:1234"),
        ("spark", "http://spark:11434"),
        ("spark:80", "http://spark:80"),
        ("http://spark", "http://spark:80"),
        ("https://spark", "https://spark:443"),
        ("https://spark:9000/ollama/", "https://spark:9000/ollama"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::]:1234", "http://[::1]:1234"),
        (' "spark:80" ', "http://spark:80"),
    ],
)
def test_every_form_of_ollama_host(value: str, url: str) -> None:
    assert find_host(None, {"OLLAMA_HOST": value}) == url


def test_the_setting_goes_before_the_variable() -> None:
    assert find_host("here:1", {"OLLAMA_HOST": "there:2"}) == "http://here:1"


@pytest.mark.parametrize("value", ["ftp://spark", "spark:port", "spark:70000"])
def test_what_is_no_address_names_where_it_came_from(value: str) -> None:
    with pytest.raises(SettingsError, match="OLLAMA_HOST"):
        find_host(None, {"OLLAMA_HOST": value})
    with pytest.raises(SettingsError, match=r"ollama\.host"):
        find_host(value, {})


def test_loopback_is_this_machine_and_nothing_else() -> None:
    assert is_local("http://127.0.0.5:1") and is_local("http://[::1]:1") and is_local("http://localhost:1")
    assert not is_local("http://spark:1") and not is_local("http://192.168.1.2:1")


def test_versions_are_read_and_unreadable_ones_let_through() -> None:
    assert parse_version("0.33.0-rc1") == (0, 33, 0)
    assert parse_version("v0.5") == (0, 5, 0)
    assert parse_version("main") is None
    assert too_old("0.2.8")
    assert not too_old("0.3.4")
    assert not too_old("0.0.0") and not too_old("main")


def test_faults_belong_to_versions_and_machines() -> None:
    stalls = next(fault for fault in KNOWN_FAULTS if "16480" in fault.source)
    assert stalls in faults_of("0.31.0", unified_memory=True)
    assert stalls in faults_of("0.31.0", unified_memory=None)
    assert stalls not in faults_of("0.31.0", unified_memory=False)
    assert stalls not in faults_of("0.32.2", unified_memory=True)
    assert faults_of("0.0.0", unified_memory=True) == ()


def test_every_known_fault_has_a_source_and_a_remedy() -> None:
    assert all(fault.source and fault.remedy and fault.what for fault in KNOWN_FAULTS)


def test_aborting_wakes_a_request_that_waits_for_its_answer() -> None:
    hang = faults.Hang()
    with running_ollama(hang) as (server, _):
        connection = Connection(server.host, default_seconds=30)
        raised: list[Exception] = []

        def ask() -> None:
            try:
                connection.client.embed("bge-m3", input=["a"])
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert hang.reached.wait(10)
        started = time.monotonic()
        connection.abort()
        thread.join(10)
        hang.release()
        assert time.monotonic() - started < 2
        assert isinstance(raised[0], httpx.TransportError)
        with pytest.raises(Aborted):
            connection.client.list()
        connection.close()


def test_a_deadline_is_the_threads_own() -> None:
    with running_ollama() as (server, _):
        connection = Connection(server.host, default_seconds=30)
        with connection.within(0.0), pytest.raises(httpx.ReadTimeout):
            connection.client.list()
        assert len(connection.client.list().models) == 1
        connection.close()


def test_the_backend_is_imported_without_its_http_client_and_numpy() -> None:
    code = (
        "import sys, embedctl.backends.ollama as b, embedctl.settings as s;"
        "b.OllamaBackend(s.OllamaSettings(), s.ModelSettings()).status();"
        "print(sorted({'httpx', 'ollama', 'numpy', 'psutil'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
