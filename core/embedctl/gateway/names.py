"""Which backend a model's name asks for."""

from __future__ import annotations

from dataclasses import dataclass

from embedctl.gateway.problems import Problem
from embedctl.metrics import BACKENDS
from embedctl.records import BackendName
from embedctl.settings import GatewaySettings, ModelSettings


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's `model` means."""

    model: str
    """As the request wrote it; answers repeat it."""
    backend: BackendName | None
    """None: whichever is active."""


class ModelNames:
    """The names that applications may call the configured model by.

    Any of them means the active backend; with `native:` or `ollama:` before it, that one. Names that are not
    among them are refused, as OpenAI does it: an index must not be filled by another model than the one
    its application believes to use.
    """

    def __init__(self, model: ModelSettings, settings: GatewaySettings) -> None:
        short = model.repo.rstrip("/").rpartition("/")[2]
        names = [model.ollama_tag.removesuffix(":latest"), short, model.repo, "embedctl"]
        self.names = tuple(dict.fromkeys([*names, *settings.model_names]))
        self.pinned = tuple(f"{backend}:{self.names[0]}" for backend in BACKENDS)
        """One name for each backend, to be listed."""
        self.any_model = settings.any_model
        self._known = {name.casefold() for name in self.names}

    def target(self, model: object) -> Target:
        """What `model` of a request asks for.

        Raises:
            Problem: It is missing, no string, or no name of the model.
        """
        if not isinstance(model, str) or not model:
            raise Problem(
                400, "model must be a string that names a model", code="invalid_model", param="model"
            )
        found = self.find(model)
        if found is None:
            raise Problem(
                404,
                f"The model {model[:100]!r} does not exist here; it is called {', '.join(self.names)}",
                code="model_not_found",
                param="model",
            )
        return found

    def find(self, model: str) -> Target | None:
        backend, colon, rest = model.partition(":")
        if colon and backend in BACKENDS and self._means_ours(rest):
            return Target(model, backend)
        return Target(model, None) if self._means_ours(model) else None

    def _means_ours(self, name: str) -> bool:
        return self.any_model or name.casefold().removesuffix(":latest") in self._known
