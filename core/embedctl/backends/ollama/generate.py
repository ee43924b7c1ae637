"""An Ollama server's language models: which there are, and having one generate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ollama import Client, ResponseError

from embedctl.backends.ollama.errors import Translator
from embedctl.backends.ollama.http import Connection
from embedctl.errors import ModelMissingError

_LEAST_BYTES: Final = 1_000_000
"""What is listed with fewer runs on somebody else's machine."""
_FIRST_PIECE_S: Final = 300.0
"""Time for a model to load and to begin; also the longest pause between two pieces."""
_OPTIONS: Final = {"num_predict": 2048, "num_ctx": 4096, "temperature": 0, "seed": 1}
_PROMPT: Final = (
    "Write a very long story about a lighthouse keeper who counts the ships of a hundred nights. "
    "Tell each night by itself, and never end the story."
)
_SIMULATED: Final = "simulated"


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """One model that can generate, on a server that answers."""

    name: str
    simulated: bool
    """The server says of itself that it is simulated."""
    _connection: Connection
    _translator: Translator

    def pieces(self, stopped: Callable[[], bool]) -> Iterator[None]:
        """Generate until `stopped`; once for each piece (as a rule a token) that arrives, when it does.

        Raises:
            BackendError: The server could not go on.
        """
        while not stopped():
            try:
                with self._connection.within(_FIRST_PIECE_S) as client:
                    answer = client.generate(self.name, _PROMPT, stream=True, options=_OPTIONS)
                    for piece in answer:  # leaving it early ends the request at the server, too
                        if stopped():
                            return
                        if piece.response or piece.thinking:
                            yield
            except Exception as error:
                raise self._translator(error, "generating") from error


@contextmanager
def language_model(url: str, name: str | None) -> Iterator[LanguageModel]:
    """A language model for the time of the block; it is unloaded afterwards if it was not loaded before.

    Args:
        name: Its tag; None: the smallest model of the server that can generate.

    Raises:
        ModelMissingError: The server has no such model, or none that generates.
        BackendError: The server does not answer.
    """
    connection = Connection(url, default_seconds=30.0)
    try:
        translator = Translator(url, name or "a language model")
        try:
            client = connection.client
            chosen = name or _smallest(client)
            if name is not None:
                _require(client, name)
            loaded = {entry.model for entry in client.ps().models}
            simulated = _SIMULATED in str(connection.get_json("/api/version").get("version", ""))
        except Exception as error:
            raise translator(error, "looking for a language model") from error
        try:
            yield LanguageModel(chosen, simulated, connection, Translator(url, chosen))
        finally:
            if not {chosen, f"{chosen}:latest"} & loaded:
                _let_go(client, chosen)
    finally:
        connection.close()


def _require(client: Client, name: str) -> None:
    try:
        client.show(name)
    except ResponseError as error:
        if error.status_code != 404:
            raise
        raise ModelMissingError(
            f"Ollama does not have the model {name!r}",
            why=error.error,
            remedy=f"fetch it with `ollama pull {name}`, or name none for the smallest that is there",
        ) from error


def _smallest(client: Client) -> str:
    found = sorted(
        (entry.size or 0, entry.model)
        for entry in client.list().models
        if entry.model and (entry.size or 0) >= _LEAST_BYTES
    )
    for _, name in found:
        if "completion" in (client.show(name).capabilities or ()):
            return name
    raise ModelMissingError(
        "Ollama has no language model",
        why=f"none of its {len(found)} models can generate text" if found else "it has no model at all",
        remedy="fetch one, such as `ollama pull llama3.2:1b`, or name another server's with ollama.host",
    )


def _let_go(client: Client, name: str) -> None:
    try:
        client.generate(name, keep_alive=0)
    except Exception:
        return  # the server is gone or lets go by itself after its five minutes
