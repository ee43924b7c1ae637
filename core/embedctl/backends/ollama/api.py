"""One model on one Ollama server over HTTP: each request with its checks, and its errors as ours.

Knows no state: what is loaded, by whom, and what that means is `OllamaBackend`'s.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence

from ollama import ResponseError

from embedctl.backends.ollama.embedding import (
    CANARY_TEXTS,
    Answer,
    Outcome,
    check_canary,
    embed_texts,
    vectors_of,
)
from embedctl.backends.ollama.errors import TextRefused, Translator, text_fault
from embedctl.backends.ollama.http import Connection
from embedctl.backends.ollama.look import LOOK_SECONDS, look, running_entry
from embedctl.backends.ollama.pull import follow_pull, pull_error
from embedctl.backends.ollama.view import View
from embedctl.errors import (
    BackendError,
    BackendTimeoutError,
    BackendUnavailableError,
    CanaryError,
    EmbedctlError,
    ModelMissingError,
)
from embedctl.progress import CancelToken, Progress
from embedctl.records import CanaryReport


class ModelApi:
    """The requests that concern one model.

    The same options go with every request: different ones would make Ollama reload the runner.

    Args:
        url: The server's base URL.
        tag: The model.
        options: `num_ctx` and `num_batch`.
        keep_alive: How long the server holds the model after a request: a Go duration, or seconds.
        request_seconds: Time allowed to a request on a connection unless told otherwise.
    """

    def __init__(
        self,
        url: str,
        tag: str,
        *,
        options: Mapping[str, int],
        keep_alive: str | float,
        request_seconds: float,
    ) -> None:
        self._url = url
        self._tag = tag
        self._options = dict(options)
        self._keep_alive = keep_alive
        self._seconds = request_seconds
        self._translator = Translator(url, tag)
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._requests = Connection(url, default_seconds=request_seconds)
        self._looks = Connection(url, default_seconds=LOOK_SECONDS)

    def connect(self) -> Connection:
        """A pool of its own, for work that is cancelled by aborting it. The caller closes it."""
        connection = Connection(self._url, default_seconds=self._seconds)
        self._made.add(connection)
        return connection

    def look(self, before: View) -> View:
        """The server and the model as they are now. Never raises."""
        return look(self._looks, self._translator, before)

    def embed(
        self,
        texts: Sequence[str],
        *,
        seconds: float,
        batch_size: int = len(CANARY_TEXTS),
        normalize: bool = True,
        dimension: int | None,
        max_tokens: int | None,
        connection: Connection | None = None,
        cancel: CancelToken | None = None,
    ) -> Outcome:
        """Embed texts in order within `seconds`; see `embed_texts`.

        Raises:
            BackendError: The whole request failed.
            Cancelled: `cancel` was set; what the server works on at that moment it still finishes.
        """
        started, count = time.monotonic(), len(texts)

        def post(texts: Sequence[str], *, truncate: bool) -> Answer:
            if cancel is not None:
                cancel.raise_if_cancelled()
            left = seconds - (time.monotonic() - started)
            if left <= 0:
                raise BackendTimeoutError(
                    f"Ollama did not embed {count} texts within {seconds:g} s",
                    remedy="send fewer texts at once, or allow more time (ollama.request_timeout_s)",
                )
            return self._post(connection or self._requests, texts, left, truncate, dimension)

        return embed_texts(
            texts,
            post,
            batch_size=batch_size,
            normalize=normalize,
            dimension=dimension,
            max_tokens=max_tokens,
        )

    def load(self, connection: Connection) -> None:
        """Have the server load the model: a request without texts.

        Raises:
            BackendError: The model could not be loaded.
        """
        self._empty_request(connection, self._seconds, "loading the model", self._keep_alive)

    def canary(self, connection: Connection, expected_dimension: int | None) -> CanaryReport:
        """Embed known texts and judge their vectors.

        Raises:
            CanaryError: They are wrong.
            BackendError: They could not be had.
        """
        together, alone = (
            self.embed(
                texts,
                seconds=self._seconds,
                dimension=expected_dimension,
                max_tokens=None,
                connection=connection,
            )
            for texts in (CANARY_TEXTS, CANARY_TEXTS[1:2])
        )
        report = check_canary(together, alone.vectors, expected_dimension)
        if not report.passed:
            raise CanaryError(
                f"Ollama's vectors for {self._tag} are wrong",
                why=report.detail,
                remedy="update Ollama and pull the model again; `embedctl doctor` lists known faults",
            )
        return report

    def unload(
        self, seconds: float, runner_lives: Callable[[], bool], pause: Callable[[float], object]
    ) -> None:
        """Ask the server to let go of the model, and wait until `/api/ps` and `runner_lives` say that it did.

        A server that cannot be reached, or that does not list the model as loaded, needs no asking.

        Raises:
            BackendTimeoutError: The model is still there after `seconds`.
        """
        deadline = time.monotonic() + seconds
        connection = self.connect()
        try:
            if not self._listed(connection, seconds):
                return
            self._empty_request(connection, seconds, "unloading the model", 0)
            while self._listed(connection, seconds) or runner_lives():
                if time.monotonic() > deadline:
                    raise BackendTimeoutError(
                        f"Ollama still holds {self._tag} after {seconds:g} s",
                        why="a request of another program may still be using it",
                        remedy=f"try `ollama stop {self._tag}`",
                    )
                pause(0.05)
        except (BackendUnavailableError, ModelMissingError):
            return  # a server that is gone, or a model that was removed, holds nothing
        finally:
            connection.close()

    def pull(self, connection: Connection, progress: Progress) -> None:
        """Have the server fetch the model from its library.

        Raises:
            ModelMissingError: The library has no such model.
            BackendError: The pull failed.
        """
        try:
            with connection.within(self._seconds) as client:
                follow_pull(client.pull(self._tag, stream=True), progress, self._tag)
        except EmbedctlError:
            raise
        except ResponseError as error:
            if error.status_code == -1:  # an {"error": …} line in the stream
                raise pull_error(error.error, self._tag) from error
            raise self._translated(connection, error, "pulling") from error
        except Exception as error:
            raise self._translated(connection, error, "pulling") from error

    def close(self) -> None:
        """End what is under way: requests that wait get a `BackendUnavailableError`. `unload` still works."""
        for connection in list(self._made):
            connection.abort()
        for connection in (self._requests, self._looks):
            connection.abort()
            connection.close()

    def _post(
        self,
        connection: Connection,
        texts: Sequence[str],
        seconds: float,
        truncate: bool,
        dimension: int | None,
    ) -> Answer:
        try:
            with connection.within(seconds) as client:
                answer = client.embed(
                    self._tag,
                    input=texts,
                    truncate=truncate,
                    options=self._options,
                    keep_alive=self._keep_alive,
                )
        except Exception as error:
            translated = self._translated(connection, error, "embedding")
            fault = text_fault(error)
            if fault is not None:
                raise TextRefused(fault, translated) from error
            raise translated from error
        loading = answer.load_duration
        return Answer(
            vectors=vectors_of(answer.embeddings, len(texts), dimension),
            tokens=answer.prompt_eval_count,
            load_seconds=None if loading is None else loading / 1e9,
        )

    def _empty_request(
        self, connection: Connection, seconds: float, doing: str, keep_alive: str | float
    ) -> None:
        try:
            with connection.within(seconds) as client:
                client.embed(self._tag, input=[], options=self._options, keep_alive=keep_alive)
        except Exception as error:
            raise self._translated(connection, error, doing) from error

    def _listed(self, connection: Connection, seconds: float) -> bool:
        try:
            with connection.within(min(seconds, LOOK_SECONDS)) as client:
                return running_entry(client, self._tag) is not None
        except Exception as error:
            raise self._translated(connection, error, "unloading the model") from error

    def _translated(self, connection: Connection, error: Exception, doing: str) -> BackendError:
        if connection.aborted and not isinstance(error, ResponseError):
            return BackendUnavailableError("The request to Ollama was ended", why=f"closed while {doing}")
        return self._translator(error, doing)
