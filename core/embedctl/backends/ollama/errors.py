"""What the `ollama` client raises, said as embedctl's errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import httpx
from ollama import ResponseError
from pydantic import ValidationError

from embedctl.backends.ollama.host import is_local
from embedctl.errors import (
    BackendAnswerError,
    BackendError,
    BackendOutOfMemoryError,
    BackendTimeoutError,
    BackendUnavailableError,
    ModelMissingError,
)

_NOT_FINITE = re.compile(r"\bNaN\b|\bInf\b", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"(exceeds?|larger than|greater than|too large).*(context|batch)|exceed_context_size|context length",
    re.IGNORECASE | re.DOTALL,
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|requires more system memory|cudaMalloc failed|failed to allocate|insufficient memory",
    re.IGNORECASE,
)


_LOADING = re.compile(r"loading model|model is (still )?loading|server loading", re.IGNORECASE)


class TextFault(Enum):
    """Why a server refuses a request because of one of its texts."""

    NOT_FINITE = "Ollama computed NaN or infinite values for this text (ollama#13572)"
    TOO_LONG = "the text is longer than the context length and Ollama refused to cut it (ollama#14186)"
    OTHER = "Ollama failed on this text"


class TextRefused(Exception):
    """A request failed in a way that one text of it may have caused."""

    def __init__(self, fault: TextFault, error: BackendError) -> None:
        super().__init__(str(error))
        self.fault = fault
        self.error = error


@dataclass(frozen=True, slots=True)
class Translator:
    """Turns exceptions of one server's client into errors that name this server and model."""

    url: str
    tag: str
    which: Callable[[str], str | None] = shutil.which

    def __call__(self, error: Exception, doing: str) -> BackendError:
        """`doing` completes "while …", such as `"embedding"`."""
        match error:
            case BackendError():
                return error
            case ResponseError():
                return self._answered(error, doing)
            case httpx.ConnectTimeout() | httpx.ConnectError() | ConnectionError():
                return self.unreachable()
            case httpx.TimeoutException():
                return BackendTimeoutError(
                    f"Ollama did not answer in time while {doing}",
                    why=f"no answer from {self.url}",
                    remedy="see `ollama ps` and the server's log; raise ollama.request_timeout_s if it works",
                )
            case httpx.HTTPError():
                return BackendUnavailableError(
                    f"The connection to Ollama was lost while {doing}",
                    why=f"{self.url}: {error}",
                    remedy="see whether `ollama serve` was stopped or crashed, then try again",
                )
            case ValidationError() | json.JSONDecodeError() | UnicodeDecodeError() | TypeError():
                return BackendAnswerError(
                    f"Ollama's answer could not be understood while {doing}",
                    why=_first_line(error),
                    remedy=f"check that {self.url} is an Ollama server and which version it is",
                )
        return BackendError(f"Ollama failed while {doing}", why=_first_line(error))

    def unreachable(self) -> BackendUnavailableError:
        """Nobody answers: say whether Ollama is missing, stopped, or on a machine that cannot be reached."""
        if not is_local(self.url):
            return BackendUnavailableError(
                f"No Ollama server answers at {self.url}",
                why="that machine refuses the connection or cannot be reached",
                remedy="check ollama.host (or OLLAMA_HOST) and that the server listens on that address",
            )
        if self.which("ollama") is None:
            return BackendUnavailableError(
                "Ollama is not installed",
                why=f"nothing answers at {self.url} and there is no `ollama` on the PATH",
                remedy="install Ollama, or set ollama.host to a server elsewhere",
            )
        return BackendUnavailableError(
            "Ollama is not running",
            why=f"`ollama` is installed, but nothing answers at {self.url}",
            remedy="start it with `ollama serve` (or `sudo systemctl start ollama`)",
        )

    def model_missing(self) -> ModelMissingError:
        return ModelMissingError(
            f"Ollama does not have the model {self.tag!r}",
            why=f"the server at {self.url} does not list it",
            remedy=f"pull it: key p on the Models screen, or `ollama pull {self.tag}`",
        )

    def _answered(self, error: ResponseError, doing: str) -> BackendError:
        said = str(error.error).strip()
        if error.status_code == 404 and "model" in said:
            return self.model_missing()
        if error.status_code == 404:
            return BackendUnavailableError(
                f"{self.url} does not offer what is needed for {doing}",
                why=said or "status 404",
                remedy="check that this is an Ollama server, and update it",
            )
        if error.status_code in (401, 403):
            return BackendUnavailableError(
                f"Ollama refused the request while {doing}",
                why=said or f"status {error.status_code}",
                remedy="set OLLAMA_API_KEY, or OLLAMA_ORIGINS on the server, as its operator says",
            )
        if _OUT_OF_MEMORY.search(said):
            return BackendOutOfMemoryError(
                f"Ollama ran out of memory while {doing}",
                why=said,
                remedy="unload other models (`ollama ps`), or lower ollama.num_ctx and ollama.num_batch",
            )
        if _LOADING.search(said):
            return BackendTimeoutError(
                f"Ollama's runner says that it is still loading, while {doing}",
                why=said,
                remedy=f"try again in a moment; if it stays so, `ollama stop {self.tag}` ends that runner",
            )
        if error.status_code == 503:
            return BackendUnavailableError(
                "Ollama is too busy to take the request", why=said, remedy="try again in a moment"
            )
        status = f"status {error.status_code}: " if error.status_code > 0 else ""
        return BackendError(
            f"Ollama failed while {doing}", why=status + said, remedy="the server's log may say more"
        )


def text_fault(error: Exception) -> TextFault | None:
    """Whether one text of a batch may have caused this failure; None where all texts share the cause."""
    if isinstance(error, ValidationError):  # null in place of a number
        return TextFault.NOT_FINITE
    if not isinstance(error, ResponseError) or error.status_code not in (400, 500):
        return None
    said = str(error.error)
    if _OUT_OF_MEMORY.search(said) or _LOADING.search(said):
        return None
    if _NOT_FINITE.search(said):
        return TextFault.NOT_FINITE
    if _TOO_LONG.search(said):
        return TextFault.TOO_LONG
    return TextFault.OTHER


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
