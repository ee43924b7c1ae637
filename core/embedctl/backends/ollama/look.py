"""What an Ollama server says of itself and of one model: version, tags, ps and show."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from ollama import Client, ShowResponse
from pydantic import ValidationError

from embedctl.backends.ollama.errors import Translator
from embedctl.backends.ollama.http import Connection
from embedctl.backends.ollama.versions import MINIMUM_VERSION, too_old, written
from embedctl.backends.ollama.view import Details, Running, View
from embedctl.errors import BackendUnavailableError

LOOK_SECONDS = 5.0
"""Time allowed to each question about the server's state."""
_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
"""llama.cpp's `enum llama_pooling_type`."""


def look(connection: Connection, translate: Translator, before: View) -> View:
    """Ask the server for everything. Never raises: the view's `error` says what went wrong.

    `before` spares `/api/show`, whose answer is fixed for a digest.
    """
    tag = translate.tag
    view = View(looked=True)
    try:
        with connection.within(LOOK_SECONDS):
            version = connection.get_json("/api/version").get("version")
        view = replace(view, version=str(version) if version else None)
        if view.version and too_old(view.version):
            return replace(view, error=_too_old(view.version))
        with connection.within(LOOK_SECONDS) as client:
            entry = next((model for model in client.list().models if same(model.model, tag)), None)
        if entry is None:
            return replace(view, error=translate.model_missing())
        view = replace(view, digest=entry.digest, size=int(entry.size) if entry.size else None)
        with connection.within(LOOK_SECONDS) as client:
            view = replace(view, running=running_entry(client, tag))
        if before.details is not None and before.digest == view.digest:
            return replace(view, details=before.details)
        with connection.within(LOOK_SECONDS) as client:
            return replace(view, details=_details(client, tag))
    except Exception as error:
        return replace(view, error=translate(error, "asking for its state"))


def running_entry(client: Client, tag: str) -> Running | None:
    """Our model's entry in `/api/ps`; None: it is not loaded."""
    entry = next((model for model in client.ps().models if same(model.model or model.name, tag)), None)
    if entry is None:
        return None
    return Running(
        size=None if entry.size is None else int(entry.size),
        size_vram=None if entry.size_vram is None else int(entry.size_vram),
        expires_at=entry.expires_at.timestamp() if entry.expires_at else None,
        context_length=entry.context_length,
    )


def same(a: str | None, b: str) -> bool:
    """Whether two names mean one model: `bge-m3` is `bge-m3:latest`, and case does not matter."""
    return a is not None and _full(a) == _full(b)


def _full(name: str) -> str:
    name = name.lower()
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def _details(client: Client, tag: str) -> Details | None:
    try:
        shown = client.show(tag)
    except ValidationError:  # servers before model_info
        return None
    return details_of(shown)


def details_of(shown: ShowResponse) -> Details:
    info = shown.modelinfo or {}
    architecture = info.get("general.architecture", "")

    def number(key: str) -> int | None:
        value: Any = info.get(f"{architecture}.{key}")
        return value if isinstance(value, int) else None

    pooling = number("pooling_type")
    blobs = re.findall(r"^FROM\s+(\S+)", shown.modelfile or "", re.MULTILINE)
    return Details(
        blob=blobs[0] if blobs else None,
        dtype=shown.details.quantization_level if shown.details else None,
        context_length=number("context_length"),
        dimension=number("embedding_length"),
        feed_forward=number("feed_forward_length"),
        heads=number("attention.head_count"),
        pooling=None if pooling is None else _POOLING.get(pooling),
    )


def _too_old(version: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"Ollama {version} is too old",
        why=f"/api/embed with a list of texts needs {written(MINIMUM_VERSION)} or newer",
        remedy="update Ollama",
    )
