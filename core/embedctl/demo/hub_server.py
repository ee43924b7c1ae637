"""A small Hub on loopback that serves folders, for the demo and the tests.

It speaks what huggingface_hub asks for when it looks up and fetches a model: the model's information with
its files, the tree, and `resolve` with HEAD, GET and ranges. Everything else answers 404.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from embedctl.demo.loopback import LoopbackServer

DEMO_REVISION = "0123456789abcdef0123456789abcdef01234567"
"""The commit at which the server shows every folder unless told otherwise."""

_LFS_SUFFIXES = frozenset({".safetensors", ".bin", ".onnx", ".pt", ".model", ".onnx_data"})
_LFS_BYTES = 10 << 20
_BLOCK = 64 << 10


@dataclass(frozen=True)
class ServedFile:
    """One file of a served folder, hashed once when first asked for."""

    path: str
    source: Path

    @cached_property
    def size(self) -> int:
        return self.source.stat().st_size

    @cached_property
    def lfs(self) -> bool:
        return self.source.suffix in _LFS_SUFFIXES or self.size > _LFS_BYTES

    @cached_property
    def sha256(self) -> str:
        with self.source.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Git's blob hash: of the content, or of the pointer that stands for a file in LFS."""
        content = self.source.read_bytes() if not self.lfs else self._pointer
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    @property
    def _pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n"
        return text.encode()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id

    def sibling(self) -> dict[str, Any]:
        """As the model information lists it."""
        entry: dict[str, Any] = {"rfilename": self.path, "size": self.size, "blobId": self.blob_id}
        if self.lfs:
            entry["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": len(self._pointer)}
        return entry

    def leaf(self) -> dict[str, Any]:
        """As the tree lists it."""
        entry: dict[str, Any] = {"type": "file", "path": self.path, "size": self.size, "oid": self.blob_id}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": len(self._pointer)}
        return entry


class HubServer:
    """Serves folders as model repositories while its `with` block runs.

    Args:
        repos: Folder by repository name.
        revision: The commit at which every repository stands; `main` names it too.
        bytes_per_second: Limit for file contents, so that progress can be seen; None: as fast as it goes.
    """

    def __init__(
        self,
        repos: Mapping[str, Path],
        revision: str = DEMO_REVISION,
        bytes_per_second: float | None = None,
    ) -> None:
        self.revision = revision
        self.bytes_per_second = bytes_per_second
        self._repos = {name: _files(folder) for name, folder in repos.items()}
        self._server: LoopbackServer | None = None
        self._stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        """The address to give to `HF_ENDPOINT` or `ModelHub(endpoint=…)`."""
        if self._server is None:
            raise RuntimeError("the server does not run")
        return f"http://127.0.0.1:{self._server.port}"

    def start(self) -> None:
        hub = self

        class Handler(HubRequestHandler):
            server_hub = hub

        self._server = LoopbackServer(0, Handler)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo-hub", daemon=True
        ).start()

    def stop(self) -> None:
        """End the server; open connections are cut."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def answer(self, request: HubRequestHandler) -> None:
        """Answer one HEAD or GET request."""
        parts = [unquote(part) for part in urlsplit(request.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._answer_api(request, "/".join(parts[2:4]), parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._answer_file(request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            request.fail(HTTPStatus.NOT_FOUND)

    def blocks(self, file: ServedFile, start: int) -> Iterator[bytes]:
        """The content of `file` from byte `start` on, at the speed that was asked for."""
        sent, began = 0, time.monotonic()
        with file.source.open("rb") as stream:
            stream.seek(start)
            while block := stream.read(_BLOCK):
                yield block
                sent += len(block)
                if self.bytes_per_second:
                    ahead = sent / self.bytes_per_second - (time.monotonic() - began)
                    if self._stopping.wait(max(0.0, ahead)):
                        return

    def _answer_api(self, request: HubRequestHandler, repo: str, rest: list[str]) -> None:
        files = self._repos.get(repo)
        if files is None:
            return request.fail(HTTPStatus.NOT_FOUND, "RepoNotFound", "Repository not found")
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in (self.revision, "main"):
            return request.fail(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        if rest[:1] in ([], ["revision"]):
            siblings = [file.sibling() for file in files.values()]
            information = {"_id": "0", "id": repo, "modelId": repo, "sha": self.revision, "private": False}
            return request.send_json(information | {"gated": False, "tags": [], "siblings": siblings})
        if rest[0] == "tree":
            return request.send_json([file.leaf() for file in files.values()])
        return request.fail(HTTPStatus.NOT_FOUND)

    def _answer_file(self, request: HubRequestHandler, repo: str, revision: str, path: str) -> None:
        files = self._repos.get(repo)
        if files is None:
            return request.fail(HTTPStatus.NOT_FOUND, "RepoNotFound", "Repository not found")
        if revision not in (self.revision, "main"):
            return request.fail(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path not in files:
            return request.fail(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
        file = files[path]
        start = _range_start(request.headers.get("Range"))
        if start and start >= file.size:
            return request.fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        request.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{file.size - 1}/{file.size}")
        request.send_header("Accept-Ranges", "bytes")
        request.send_header("Content-Length", str(file.size - start))
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("X-Repo-Commit", self.revision)
        request.send_header("ETag", f'"{file.etag}"')
        if file.lfs:
            request.send_header("X-Linked-ETag", f'"{file.etag}"')
            request.send_header("X-Linked-Size", str(file.size))
        request.end_headers()
        if request.command == "GET":
            for block in self.blocks(file, start):
                request.wfile.write(block)
        return None


class HubRequestHandler(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server_hub.answer(self)

    do_HEAD = do_GET  # noqa: N815 (the names that http.server calls)

    def send_json(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def fail(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        """Refuse as the Hub does: the reason stands in headers. `headers` use `_` for `-`."""
        body = json.dumps({"error": message or HTTPStatus(status).phrase}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if message:
            self.send_header("X-Error-Message", message)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class names it)
        """Say nothing: stderr belongs to the program around the server."""


def _files(folder: Path) -> dict[str, ServedFile]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {name: ServedFile(name, path) for path in found for name in [path.relative_to(folder).as_posix()]}


def _range_start(header: str | None) -> int:
    """First byte of a `bytes=N-` range; 0 without one."""
    first = (header or "").removeprefix("bytes=").split("-")[0]
    return int(first) if first.isdigit() else 0
