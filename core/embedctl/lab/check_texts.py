"""The texts that a check embeds: questions and passages in six languages, and the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Final

from embedctl.lab.beir import LANGUAGES, built_in_set

QUERIES: Final = 1_000
QUERIES_BESIDE_OWN: Final = 250
"""Built-in queries where the user brings texts: enough for neighbours, and their texts decide on parity."""
PASSAGES_PER_LANGUAGE: Final = 20
"""Each costs as much as ten queries."""
OWN: Final = "yours"


@dataclass(frozen=True, slots=True)
class CheckTexts:
    """Texts in a fixed order; those for retrieval are known by their place."""

    name: str
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    """The language of each, or `yours`."""
    queries: tuple[int, ...]
    """Places of the queries that search."""
    relevant: tuple[int, ...]
    """Per query, the place of the passage that answers it."""
    documents: tuple[int, ...]
    """Places of the passages that are searched."""

    @property
    def label(self) -> str:
        """The name, and the hash of the content."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.encode(errors="surrogatepass") + b"\0")
        return f"{self.name} {digest.hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class _Question:
    language: str
    passage: str
    """Its name within the language."""
    text: str


def texts_for_check(own: Sequence[str] | None = None, own_name: str = OWN) -> CheckTexts:
    """1,000 questions and 120 passages of XQuAD in six languages; or fewer questions beside `own` texts.

    Each paragraph comes in one language only, so that no passage has its translation beside it. Questions
    whose paragraph is among the passages search; the others only tell about parity.

    Raises:
        UsageError: The built-in texts are missing.
    """
    passages: dict[tuple[str, str], str] = {}
    searching: list[list[_Question]] = []
    others: list[list[_Question]] = []
    for number, language in enumerate(LANGUAGES):
        found = built_in_set(language)
        names = list(found.documents)[number :: len(LANGUAGES)][:PASSAGES_PER_LANGUAGE]
        passages |= {(language, name): found.documents[name] for name in names}
        questions = [
            _Question(language, name, found.queries[query])
            for query, grades in found.relevant.items()
            for name in grades
        ]
        searching.append([one for one in questions if one.passage in names])
        others.append([one for one in questions if one.passage not in names])
    wanted = QUERIES if own is None else QUERIES_BESIDE_OWN
    queries = _in_turn(searching)[:wanted]
    rest = _in_turn(others)[: wanted - len(queries)] if own is None else []
    brought = tuple(own or ())
    first_query = len(brought)
    first_document = first_query + len(queries) + len(rest)
    place = {key: first_document + position for position, key in enumerate(passages)}
    built_in = f"xquad-6-languages, {len(queries) + len(rest):,} questions, {len(passages)} passages"
    return CheckTexts(
        name=built_in if own is None else f"{own_name}, {len(brought)} texts, and {built_in}",
        texts=(*brought, *(one.text for one in (*queries, *rest)), *passages.values()),
        groups=(
            *(OWN for _ in brought),
            *(one.language for one in (*queries, *rest)),
            *(language for language, _ in passages),
        ),
        queries=tuple(range(first_query, first_query + len(queries))),
        relevant=tuple(place[one.language, one.passage] for one in queries),
        documents=tuple(range(first_document, first_document + len(passages))),
    )


def _in_turn(lists: Sequence[Sequence[_Question]]) -> list[_Question]:
    """One of each list, then the next of each, so that any beginning holds equal shares; no text twice."""
    mixed = (one for one in chain.from_iterable(zip_longest(*lists)) if one is not None)
    return list({one.text: one for one in mixed}.values())
