"""Retrieval sets in the layout of BEIR: a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv.

The two .jsonl may be compressed (.gz).
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedctl.errors import UsageError
from embedctl.lab.workloads import assets_folder

LANGUAGES: Final = ("en", "de", "es", "zh", "ar", "ru")
"""Of the built-in XQuAD sets."""


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Documents, queries, and which document answers which query; all by name."""

    name: str
    documents: Mapping[str, str]
    """Text by name; a title stands before its text."""
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    """Grade above 0 by document, by query."""


def built_in_set(language: str) -> RetrievalSet:
    """XQuAD's questions and paragraphs in one of `LANGUAGES` (assets/texts/ATTRIBUTION.md)."""
    return read_set(assets_folder() / "texts" / "xquad" / language, f"xquad-{language}")


def read_set(
    folder: Path,
    name: str = "",
    *,
    judged: Path | None = None,
    keep: Callable[[str], bool] | None = None,
) -> RetrievalSet:
    """Read a folder; queries that no document answers are left out.

    Args:
        judged: The file that says what answers what, tab-separated or .jsonl; qrels/test.tsv if not told.
        keep: Whether a document that answers nothing is kept, by its name; None: all are.

    Raises:
        UsageError: A file is missing or not laid out as BEIR's are.
    """
    judged = judged or folder / "qrels" / "test.tsv"
    try:
        relevant: dict[str, dict[str, int]] = {}
        for row in _judgements(judged):
            if (grade := int(float(row["score"]))) > 0:
                relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = grade
        answers = {document for grades in relevant.values() for document in grades}
        return RetrievalSet(
            name or folder.name,
            {
                row["_id"]: " ".join(filter(None, (row.get("title"), row["text"])))
                for row in _lines(folder, "corpus.jsonl")
                if keep is None or row["_id"] in answers or keep(row["_id"])
            },
            {row["_id"]: row["text"] for row in _lines(folder, "queries.jsonl") if row["_id"] in relevant},
            relevant,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UsageError(
            f"{folder} cannot be read as a retrieval set",
            why=f"{type(error).__name__}: {error}",
            remedy=f"give a folder with corpus.jsonl, queries.jsonl and qrels/{judged.name}, as BEIR has it",
        ) from error


def _judgements(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".jsonl":
            yield from _objects(lines)
        else:
            yield from csv.DictReader(lines, delimiter="\t")


def _lines(folder: Path, name: str) -> Iterator[dict[str, str]]:
    compressed = folder / f"{name}.gz"
    if compressed.is_file():
        with gzip.open(compressed, "rt", encoding="utf-8") as lines:
            yield from _objects(lines)
    else:
        with (folder / name).open(encoding="utf-8") as lines:
            yield from _objects(lines)


def _objects(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    return (json.loads(line) for line in lines if line.strip())
