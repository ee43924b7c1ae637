"""The Ollama server as last seen, as records; and what can be derived from them without asking anybody."""

from __future__ import annotations

from dataclasses import dataclass

from embedctl.errors import EmbedctlError
from embedctl.records import Preflight
from embedctl.settings import OllamaSettings


@dataclass(frozen=True, slots=True)
class Running:
    """Our model's entry in `/api/ps`."""

    size: int | None
    size_vram: int | None
    expires_at: float | None
    context_length: int | None

    @property
    def device(self) -> str | None:
        """Where the weights are, as Ollama says; on a unified pool "gpu" says nothing about residency."""
        if not self.size or self.size_vram is None:
            return None
        if self.size_vram == 0:
            return "cpu"
        share = self.size_vram / self.size
        return "gpu" if share >= 1 else f"{share:.0%} gpu, rest cpu"


@dataclass(frozen=True, slots=True)
class Details:
    """What `/api/show` says of our model; fixed for a digest."""

    blob: str | None
    """The model file that the runner's command line names."""
    dtype: str | None
    context_length: int | None
    dimension: int | None
    feed_forward: int | None
    heads: int | None
    pooling: str | None


@dataclass(frozen=True, slots=True)
class View:
    """The server as last seen."""

    version: str | None = None
    digest: str | None = None
    size: int | None = None
    """Bytes of the model on the server's disk."""
    details: Details | None = None
    running: Running | None = None
    error: EmbedctlError | None = None
    """Why the server or the model cannot be used."""
    looked: bool = False

    @property
    def dimension(self) -> int | None:
        """The width of the vectors by the model's metadata."""
        return self.details.dimension if self.details else None

    def max_tokens(self, settings: OllamaSettings) -> int | None:
        """The longest text that is not cut; None until the model's metadata are known."""
        if self.details is None:
            return None
        limits = (settings.num_ctx, settings.num_batch, self.details.context_length)
        return min(limit for limit in limits if limit is not None)

    def shorter_context(self, settings: OllamaSettings) -> int | None:
        """The context that the model is loaded with, where that is shorter than what we ask for.

        Ollama reloads the model as soon as a request with our options comes.
        """
        loaded = self.running.context_length if self.running else None
        limit = self.details.context_length if self.details else None
        wanted = min(settings.num_ctx, limit) if limit else settings.num_ctx
        return loaded if loaded is not None and loaded < wanted else None


def preflight_of(view: View, settings: OllamaSettings) -> Preflight:
    """What a load needs: what `/api/ps` claims if it is loaded already, else weights and an estimate.

    The estimate of the compute buffers counts, per token of a batch, the feed-forward's input and output
    and six vectors of the model's width in float32: the widest point of a BERT-like graph in llama.cpp.
    """
    if view.running is not None and view.running.size:
        return Preflight("ollama", view.running.size, "already loaded; Ollama /api/ps size")
    if view.size is None:
        return Preflight("ollama", None, "Ollama does not state the model's size")
    details = view.details
    tokens = view.max_tokens(settings)
    if details is None or tokens is None or details.feed_forward is None or details.dimension is None:
        return Preflight("ollama", view.size, "size of the weights (/api/tags); buffers come on top")
    batch = tokens
    buffers = batch * (2 * details.feed_forward + 6 * details.dimension) * 4
    warnings = []
    if details.heads is not None:
        scores = details.heads * batch * batch * 4
        if scores > view.size:
            warnings.append(
                f"a text of {batch:,} tokens needs about {scores / 2**30:.1f} GiB more "
                "where llama.cpp has no flash attention"
            )
    return Preflight(
        "ollama",
        view.size + buffers,
        f"weights (/api/tags) and estimated buffers for {batch:,}-token batches, without the CUDA context",
        tuple(warnings),
    )
