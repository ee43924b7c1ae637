"""Retrieval sets in the layout of BEIR: a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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


def read_set(folder: Path, name: str = "") -> RetrievalSet:
    """Read a folder.

    Raises:
        UsageError: A file is missing or not laid out as BEIR's are.
    """
    try:
        corpus = _lines(folder / "corpus.jsonl")
        queries = _lines(folder / "queries.jsonl")
        relevant: dict[str, dict[str, int]] = {}
        with (folder / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, delimiter="\t"):
                if (grade := int(row["score"])) > 0:
                    relevant.setdefault(row["query-id"], {})[row["corpus-id"]] = grade
        return RetrievalSet(
            name or folder.name,
            {row["_id"]: " ".join(filter(None, (row.get("title"), row["text"]))) for row in corpus},
            {row["_id"]: row["text"] for row in queries},
            relevant,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} cannot be read as a retrieval set",
            why=f"{type(error).__name__}: {error}",
            remedy="give a folder with corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them",
        ) from error


def _lines(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
