"""The retrieval sets that a study of quality searches: built in, in a folder, or a data set of the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from embedctl.errors import UsageError
from embedctl.lab.beir import LANGUAGES, RetrievalSet, built_in_set, read_set
from embedctl.records import QualitySet

HUB: Final = "hub:"
XQUAD: Final = "xquad"
"""All built-in sets: six languages each by itself, and questions in five on the paragraphs in English."""

Fetch = Callable[[str, str | None, str], tuple[Path, Path]]
"""Gets a data set of the Hub, by repository, revision and split: the folder of its texts, and the file that
says what answers what."""


@dataclass(frozen=True, slots=True)
class SearchSet:
    """One retrieval set, its texts in a fixed order."""

    name: str
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    note: str = ""

    def described(self) -> QualitySet:
        digest = hashlib.sha256()
        for part in (self.documents, self.queries):
            for name, text in part.items():
                digest.update(f"{name}\0{text}\0".encode(errors="surrogatepass"))
        for query in self.queries:
            digest.update(f"{query}\0{sorted(self.relevant[query].items())}\0".encode())
        return QualitySet(
            self.name, digest.hexdigest()[:12], len(self.queries), len(self.documents), self.note
        )


def search_sets(
    wanted: Sequence[str],
    *,
    split: str = "test",
    most_queries: int | None = None,
    most_documents: int | None = None,
    fetch: Fetch,
) -> tuple[SearchSet, ...]:
    """The sets by their names, in order, none twice.

    Args:
        wanted: `xquad` (all built-in ones), `xquad-de` (German), `xquad-de-en` (German questions, English
            paragraphs), a folder in BEIR's layout, or `hub:owner/name[@revision]`.
        most_queries: Of each set, spread evenly over it.
        most_documents: Of each folder or data set of the Hub: all that answer a query, and a fixed
            pseudo-random choice of the others.
        fetch: Gets a data set of the Hub.

    Raises:
        UsageError: There is no such set, or it cannot be read.
        HubError: It could not be fetched.
    """
    names = [name for each in wanted for name in (_xquad_names() if each == XQUAD else (each,))]
    return tuple(
        _fewer(_one(name, split, most_documents, fetch), most_queries) for name in dict.fromkeys(names)
    )


def _xquad_names() -> tuple[str, ...]:
    each = (f"{XQUAD}-{language}" for language in LANGUAGES)
    across = (f"{XQUAD}-{language}-en" for language in LANGUAGES if language != "en")
    return (*each, *across)


def _one(name: str, split: str, most_documents: int | None, fetch: Fetch) -> SearchSet:
    if name.startswith(HUB):
        repo, _, revision = name.removeprefix(HUB).partition("@")
        folder, judged = fetch(repo, revision or None, split)
        return _from_folder(folder, f"{repo} {split}", judged, most_documents)
    if name.startswith(f"{XQUAD}-"):
        return _built_in(name)
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(
            f"There is no retrieval set {name!r}",
            why="it is no folder, and none of the built-in sets",
            remedy=f"use {XQUAD}, {XQUAD}-de, {XQUAD}-de-en (languages: {', '.join(LANGUAGES)}), a folder "
            f"in BEIR's layout, or {HUB}owner/name",
        )
    return _from_folder(folder, folder.resolve().name, _judged_in(folder, split), most_documents)


def _built_in(name: str) -> SearchSet:
    languages = name.split("-")[1:]
    if not 1 <= len(languages) <= 2 or not set(languages) <= set(LANGUAGES):
        raise UsageError(
            f"There is no built-in set {name!r}", remedy=f"its languages are {', '.join(LANGUAGES)}"
        )
    asked, searched = built_in_set(languages[0]), built_in_set(languages[-1])
    return SearchSet(name, asked.queries, searched.documents, asked.relevant)


def _judged_in(folder: Path, split: str) -> Path:
    """BEIR's .tsv, or where there is none the .jsonl; the .tsv's name if there is neither."""
    tabs, lines = (folder / "qrels" / f"{split}.{kind}" for kind in ("tsv", "jsonl"))
    return lines if lines.is_file() and not tabs.is_file() else tabs


def _from_folder(folder: Path, name: str, judged: Path, most_documents: int | None) -> SearchSet:
    whole = read_set(folder, name, judged=judged, keep=None if most_documents is None else lambda _: False)
    note = ""
    if most_documents is not None:
        whole, note = _sampled(folder, whole, judged, most_documents)
    missing = {name for grades in whole.relevant.values() for name in grades} - whole.documents.keys()
    if missing or not whole.queries:
        raise UsageError(
            f"{folder} is no whole retrieval set",
            why=f"{len(missing):,} documents that answer queries are not in its corpus" if missing
            else "no query has a document that answers it",
            remedy="look whether corpus, queries and qrels belong together",
        )  # fmt: skip
    return SearchSet(name, whole.queries, whole.documents, whole.relevant, note)


def _sampled(folder: Path, answers: RetrievalSet, judged: Path, most: int) -> tuple[RetrievalSet, str]:
    """All documents that answer, and of the others those whose names hash lowest, up to `most` in all."""
    ranked: list[tuple[bytes, str]] = []

    def note_name(name: str) -> bool:
        ranked.append((hashlib.sha256(name.encode()).digest(), name))
        return False

    read_set(folder, judged=judged, keep=note_name)
    room = max(0, most - len(answers.documents))
    chosen = {name for _, name in sorted(ranked)[:room]}
    if len(chosen) == len(ranked):
        return read_set(folder, answers.name, judged=judged), ""
    kept = read_set(folder, answers.name, judged=judged, keep=chosen.__contains__)
    whole = len(ranked) + len(answers.documents)
    return kept, f"{len(kept.documents):,} of {whole:,} documents: easier to search than all of them"


def _fewer(whole: SearchSet, most: int | None) -> SearchSet:
    if most is None or most >= len(whole.queries):
        return whole
    names = list(whole.queries)
    chosen = [names[number * len(names) // most] for number in range(most)]
    note = f"{most:,} of {len(names):,} queries"
    return replace(
        whole,
        queries={name: whole.queries[name] for name in chosen},
        note=f"{whole.note}; {note}" if whole.note else note,
    )
