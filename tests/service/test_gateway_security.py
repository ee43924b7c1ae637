"""Who may call the gateway, from where, and what it never tells."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedctl.errors import SettingsError, UsageError
from embedctl.gateway.keys import VARIABLE, Keys, load_keys
from embedctl.gateway.server import Gateway
from embedctl.settings import GatewaySettings
from tests.support.fake_engine import FakeEngine
from tests.support.gateways import Served, served, wait_until

KEY, OTHER = "correct-horse-battery-staple", "another-key-of-some-length"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(
        tmp_path_factory.mktemp("keyed"),
        keys=(KEY, OTHER),
        allowed_hosts=["embed.example"],
        cors_origins=["https://app.example"],
    ) as found:
        yield found


def test_every_key_opens_the_door_and_nothing_else_does(keyed: Served) -> None:
    for headers in (
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {OTHER}"},
        {"X-API-Key": OTHER},
    ):
        assert keyed.embed("a", headers=headers).status_code == 200
        assert keyed.client.get("/metrics", headers=headers).status_code == 200
    for headers in (
        {},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": ""},
        {"X-API-Key": "ungültig"},
    ):
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        refused = keyed.client.post("/v1/embeddings", json={"model": "bge-m3", "input": "a"}, headers=raw)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "path", ["/metrics", "/readyz", "/fingerprint", "/openapi.json", "/v1/models", "/api/tags", "/nothing"]
)
def test_only_the_sign_of_life_is_open(keyed: Served, path: str) -> None:
    assert keyed.client.get(path).status_code == 401
    assert keyed.client.get("/healthz").status_code == 200


def test_a_wrong_key_is_refused_before_the_body_is_read(keyed: Served) -> None:
    port = int(keyed.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000\r\n\r\n")
        answer = b""
        while piece := connection.recv(4096):  # to the end: the connection is closed
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401 ") and b'{"error":"A valid API key is needed' in answer


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:11435", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:11435", 200),
        ("192.168.7.7", 200),  # an address is nobody's name: it cannot be resolved to something else
        ("embed.example", 200),
        ("rebound.example", 403),
        ("localhost.example", 403),
        ("localhost@rebound.example", 403),
        ("rebound.example#localhost", 403),
        ("127.0.0.1.example", 403),
        ("", 403),
    ],
)
def test_the_host_must_be_a_name_of_this_machine(keyed: Served, host: str, status: int) -> None:
    assert keyed.client.get("/healthz", headers={"Host": host}).status_code == status


def test_only_listed_pages_may_call_from_a_browser(keyed: Served) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    allowed = keyed.embed("a", headers={**headers, "Origin": "https://app.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "X-Embedctl-Fingerprint" in allowed.headers["access-control-expose-headers"]
    refused = keyed.embed("a", headers={**headers, "Origin": "https://evil.example"})
    assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    assert keyed.client.options("/v1/embeddings", headers=asked).status_code == 200


def test_without_a_list_no_page_may_call(tmp_path: Path) -> None:
    with served(tmp_path) as made:
        for origin in ("http://localhost:3000", "null", "https://app.example"):
            refused = made.embed("a", headers={"Origin": origin})
            assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
        preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        assert made.client.options("/v1/embeddings", headers=preflight).status_code == 403


def test_logs_hold_neither_texts_nor_keys_nor_queries(
    keyed: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        good = {"Authorization": f"Bearer {KEY}"}
        keyed.embed("a very private text", headers=good)
        keyed.embed(["private", 3], headers={"X-API-Key": "guessed-key-0123456789"})
        keyed.client.get("/fingerprint?backend=native&token=hidden-in-a-query", headers=good)
        keyed.client.post("/v1/embeddings", content=b'{"input": "private, not JSON', headers=good)
    ours = [
        record.getMessage() for record in caplog.records if record.name.startswith(("embedctl", "uvicorn"))
    ]
    assert any("POST /v1/embeddings 200" in line for line in ours)
    for secret in ("private", KEY, "guessed-key", "hidden-in-a-query"):
        assert not any(secret in line for line in ours)


def test_a_path_writes_no_log_lines_of_its_own(keyed: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        keyed.client.get("/nothing%0a%0dPOST%20/forged%1b%5b2J", headers={"X-API-Key": KEY})
        # The line is written when the answer is out.
        wait_until(lambda: any(r.name == "embedctl.gateway.access" for r in caplog.records))
    lines = [r.getMessage() for r in caplog.records if r.name == "embedctl.gateway.access"]
    assert lines[-1].startswith("GET /nothing%0a%0dPOST%20/forged%1b%5b2J 404 ")


# Keys and addresses at the start ---


def test_beyond_loopback_it_starts_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_to_all = GatewaySettings(host="0.0.0.0", port=0)
    with pytest.raises(SettingsError, match="only with an API key"):
        Gateway(FakeEngine(), open_to_all).start()
    monkeypatch.setenv(VARIABLE, f"{KEY}, {OTHER}")
    keys = load_keys(open_to_all)
    assert keys.accept_any([KEY.encode()]) and keys.accept_any([b"", OTHER.encode()])
    assert not keys.accept_any([]) and not keys.accept_any([f"{KEY}, {OTHER}".encode()])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_needs_no_key(host: str) -> None:
    assert not load_keys(GatewaySettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "spark.local", "localhost.example"])
def test_every_other_address_does(host: str) -> None:
    with pytest.raises(SettingsError):
        load_keys(GatewaySettings(host=host))


def test_a_key_file_must_be_private_and_hold_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# two keys\n{KEY}\n\n{OTHER}\n")
    settings = GatewaySettings(key_file=str(file))
    file.chmod(0o640)
    with pytest.raises(SettingsError, match="not safe"):
        load_keys(settings)
    file.chmod(0o600)
    assert load_keys(settings).accept_any([OTHER.encode()])
    file.write_text("# none\n")
    with pytest.raises(SettingsError, match="has no key"):
        load_keys(settings)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_keys(GatewaySettings(key_file=str(tmp_path / "nothing")))


@pytest.mark.parametrize("weak", ["short", "with a space in the midst", "ümlaut-" * 5])
def test_a_weak_key_is_refused_without_being_shown(
    weak: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(weak, encoding="latin-1")
    file.chmod(0o600)
    with pytest.raises(SettingsError) as refused:
        load_keys(GatewaySettings(key_file=str(file)))
    assert weak not in str(refused.value)


def test_an_address_in_use_is_told_with_a_remedy() -> None:
    first = Gateway(FakeEngine(), GatewaySettings(port=0), keys=Keys())
    port = int(first.start().rpartition(":")[2])
    try:
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            Gateway(FakeEngine(), GatewaySettings(port=port), keys=Keys()).start()
    finally:
        first.stop()
