"""`/api/pull`: from Ollama's lines of progress to ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from embedctl.errors import BackendError, BackendUnavailableError, ModelMissingError
from embedctl.progress import Progress
from embedctl.records import ProgressItem


class PullLine(Protocol):
    """One line of the stream, as the `ollama` client gives it."""

    @property
    def status(self) -> str | None: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def completed(self) -> int | None: ...
    @property
    def total(self) -> int | None: ...


def follow_pull(lines: Iterable[PullLine], progress: Progress, tag: str) -> None:
    """Report each line until the stream ends.

    Raises:
        BackendUnavailableError: The stream ended without "success".
    """
    layers: dict[str, ProgressItem] = {}
    status = ""
    for line in lines:
        status = line.status or ""
        if line.digest and line.total:
            name = _short(line.digest)
            done = line.completed or 0
            layers[name] = ProgressItem(name, done, line.total, "done" if done >= line.total else "running")
        progress(
            status,
            done=sum(layer.done for layer in layers.values()) if layers else None,
            total=sum(layer.total or 0 for layer in layers.values()) if layers else None,
            unit="bytes" if layers else "",
            items=tuple(layers.values()),
        )
    if status != "success":
        raise BackendUnavailableError(
            f"Ollama stopped pulling {tag} before it was done",
            why=f"its last word was {status!r}" if status else "it said nothing",
            remedy="start again: what has arrived is kept by the server",
        )


def pull_error(said: str, tag: str) -> BackendError:
    """An `{"error": …}` line as an error with its remedy."""
    lowered = said.lower()
    if "file does not exist" in lowered or "not found" in lowered:
        return ModelMissingError(
            f"There is no model {tag!r} to pull",
            why=said,
            remedy="correct model.ollama_tag: the name must exist in Ollama's library",
        )
    if "no space left" in lowered:
        return BackendError(
            f"The disk of the Ollama server is too full for {tag}",
            why=said,
            remedy="free space there (`ollama list`, `ollama rm`), or move OLLAMA_MODELS to a larger disk",
        )
    if "newer version" in lowered or "requires" in lowered:
        return BackendError(
            f"This Ollama is too old for {tag}", why=said, remedy="update Ollama, then pull again"
        )
    if any(word in lowered for word in ("dial tcp", "lookup", "timeout", "max retries", "connection")):
        return BackendUnavailableError(
            "The Ollama server cannot reach its model library",
            why=said,
            remedy="check that machine's network, proxy and DNS, then start again",
        )
    return BackendError(f"Ollama could not pull {tag}", why=said, remedy="the server's log may say more")


def _short(digest: str) -> str:
    """`sha256:daec91ffb5dd…` → `daec91ffb5dd`, as `ollama pull` shows it."""
    return digest.removeprefix("sha256:")[:12]
