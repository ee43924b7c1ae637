"""What the checks' tests put their questions to: a few texts, and backends over a local server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from embedctl.backends.base import EmbedRequest
from embedctl.backends.ollama import OllamaBackend
from embedctl.demo.ollama_server import Interceptor
from embedctl.lab.check_evidence import CheckTarget, Evidence, collect
from embedctl.lab.check_texts import CheckTexts, texts_for_check
from embedctl.progress import CancelToken, silent
from embedctl.records import EmbedResult
from embedctl.settings import ModelSettings, OllamaSettings
from tests.support.fake_processes import FakeProcesses
from tests.support.ollama_faults import WordSumRunner, count_words, running_ollama


def few_texts(own: Sequence[str] | None = None) -> CheckTexts:
    """30 passages of the built-in ones in all languages, and 60 questions that they answer."""
    whole = texts_for_check(own)
    documents = whole.documents[::4]
    pairs = [
        (query, document)
        for query, document in zip(whole.queries, whole.relevant, strict=True)
        if document in documents
    ][::2][:60]
    kept = [*range(whole.queries[0]), *(query for query, _ in pairs), *documents]
    place = {old: new for new, old in enumerate(kept)}
    return CheckTexts(
        "few",
        tuple(whole.texts[old] for old in kept),
        tuple(whole.groups[old] for old in kept),
        tuple(place[query] for query, _ in pairs),
        tuple(place[document] for _, document in pairs),
        tuple(place[document] for document in documents),
    )


@contextmanager
def target(fault: Interceptor | None = None) -> Iterator[CheckTarget]:
    """A loaded Ollama backend whose server goes wrong from now on."""
    with running_ollama(runner=WordSumRunner) as (server, _):
        backend = OllamaBackend(OllamaSettings(host=server.host), ModelSettings(), table=FakeProcesses())
        try:
            backend.load(silent, CancelToken())
            server.intercept = fault

            def embed(texts: Sequence[str]) -> EmbedResult:
                return backend.embed(EmbedRequest(texts))

            yield CheckTarget("ollama", embed, backend.fingerprint())
        finally:
            backend.close()


def evidence(
    texts: CheckTexts,
    fault: Interceptor | None = None,
    *,
    tell: Callable[[str, float], None] = lambda step, done: None,
    cancel: CancelToken | None = None,
) -> Evidence:
    """What a backend with this fault shows."""
    with target(fault) as found:
        return collect(found, texts, count_words, tell, cancel or CancelToken())


def as_native(shown: Evidence) -> Evidence:
    """The same, shown by a backend of another name."""
    assert shown.limit is not None
    return replace(
        shown,
        backend="native",
        fingerprint=replace(shown.fingerprint, backend="native"),
        limit=replace(shown.limit, backend="native"),
    )
