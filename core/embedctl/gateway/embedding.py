"""From the texts of a request to its vectors, and whose they are."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from starlette.requests import Request

from embedctl.engine.facade import EngineFacade
from embedctl.errors import BackendUnavailableError
from embedctl.gateway.calls import FINGERPRINT_HEADER, Call
from embedctl.gateway.inputs import Inputs, TokenIds
from embedctl.gateway.metrics import RESULT_IN_SCOPE
from embedctl.gateway.names import Target
from embedctl.gateway.pace import Pace
from embedctl.gateway.problems import Problem
from embedctl.progress import CancelToken
from embedctl.records import BackendName, EmbedResult
from embedctl.settings import GatewaySettings

BACKEND_HEADER: Final = "X-Embedctl-Backend"
TRUNCATED_HEADER: Final = "X-Embedctl-Truncated"
_DIGEST: Final = re.compile(r"[0-9a-f]{12}")
_INDICES_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """A body that is ready to be sent, and the headers that say whose vectors are in it."""

    body: bytes
    headers: dict[str, str]


class Embedder:
    """Embeds the texts of requests. Lives on the event loop; the work is done in threads."""

    def __init__(self, engine: EngineFacade, settings: GatewaySettings, tokens: TokenIds) -> None:
        self._engine = engine
        self._most_tokens = settings.max_tokens
        self._tokens = tokens
        self._pace = Pace()
        self.last_success: dict[BackendName, float] = {}
        """Monotonic time of the last good answer, by backend."""

    async def embed(
        self,
        call: Call,
        request: Request,
        target: Target,
        inputs: Inputs,
        render: Callable[[EmbedResult], bytes],
    ) -> Answer:
        """The answer to a request.

        Args:
            render: Makes the body; called in the thread, since it takes milliseconds for a large request.

        Raises:
            Problem: The request cannot be answered as it is, or its vectors have another fingerprint than
                it demands.
            EmbedctlError: The engine could not embed.
        """
        demanded = demanded_fingerprints(call.headers.get(FINGERPRINT_HEADER))

        def do(until: float, cancel: CancelToken) -> tuple[EmbedResult, bytes]:
            # Not before the request's turn has come: a switch may have ended the trial meanwhile.
            backend = self._backend_for(target.backend, demanded)
            texts = self._tokens.texts(inputs, self._most_tokens)
            beside = call.texts_beside(len(texts))
            result = self._ask(texts, backend, until, cancel)
            self._pace.answered(result, beside)
            if demanded:
                _check_fingerprint(result, demanded)
            if result.tokens is None:  # some servers do not count them
                result = replace(result, tokens=self._tokens.count(texts))
            return result, render(result)

        result, body = await call.work(len(inputs), do)
        self.last_success[result.backend] = time.monotonic()
        request.scope[RESULT_IN_SCOPE] = result
        headers = {BACKEND_HEADER: result.backend}
        if result.fingerprint is not None:
            headers[FINGERPRINT_HEADER] = result.fingerprint
        if result.truncated:
            shown = ",".join(map(str, result.truncated[:_INDICES_SHOWN]))
            headers[TRUNCATED_HEADER] = shown + (",..." if len(result.truncated) > _INDICES_SHOWN else "")
        return Answer(body, headers)

    def _ask(
        self, texts: Sequence[str], backend: BackendName | None, until: float, cancel: CancelToken
    ) -> EmbedResult:
        at_a_time = self._pace.asked(len(texts), backend)

        def ask() -> EmbedResult:
            left = max(0.0, until - time.monotonic())
            return self._engine.embed(
                texts, backend=backend, batch_size=at_a_time, timeout=left, cancel=cancel
            )

        try:
            return ask()
        except BackendUnavailableError:  # a connection that broke under it is worth a second try
            if cancel.cancelled:
                raise
            return ask()

    def _backend_for(self, backend: BackendName | None, demanded: frozenset[str]) -> BackendName | None:
        """While a trial shares requests between two backends, a demanded fingerprint names the one.

        Where it is neither's, the active one answers: its fingerprint may only be unknown until it is loaded.
        """
        trial = self._engine.trial() if demanded and backend is None else None
        if trial is None or not trial.trial.share:
            return backend
        candidate = trial.trial.candidate
        if self._engine.fingerprint(candidate).digest not in demanded:
            return trial.active
        return None if self._engine.fingerprint(trial.active).digest in demanded else candidate


def demanded_fingerprints(given: str | None) -> frozenset[str]:
    """The digests of which a request with that header insists on one; none: any will do.

    Raises:
        Problem: One is no digest.
    """
    if given is None:
        return frozenset()
    demanded = frozenset(digest.strip() for digest in given.split(","))
    if not all(map(_DIGEST.fullmatch, demanded)):
        raise Problem(
            400,
            f"{FINGERPRINT_HEADER} must be a digest of 12 hexadecimal digits, as GET /fingerprint shows it, "
            "or several with commas between them",
            code="invalid_header",
            param=FINGERPRINT_HEADER,
        )
    return demanded


def _check_fingerprint(result: EmbedResult, demanded: frozenset[str]) -> None:
    if result.fingerprint not in demanded:
        raise Problem(
            409,
            f"The vectors would have the fingerprint {result.fingerprint} ({result.backend}), and the "
            f"request demands {' or '.join(sorted(demanded))}: they must not be mixed in one index",
            code="fingerprint_mismatch",
            param=FINGERPRINT_HEADER,
            headers={
                FINGERPRINT_HEADER: result.fingerprint or "unknown",
                BACKEND_HEADER: result.backend,
                "x-should-retry": "false",  # OpenAI's clients would try 409 again
            },
        )
