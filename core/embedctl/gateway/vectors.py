"""Vectors as they leave the gateway: cut and renormalised where asked, as JSON numbers or base64."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from embedctl.gateway.problems import Problem
from embedctl.records import EmbedResult, TextFailure

if TYPE_CHECKING:
    from embedctl.records.backends import Vectors

_ROWS: Final = 32
"""Vectors written at a time: about a millisecond, after which other threads get their turn."""


def cut(result: EmbedResult, dimensions: int | None) -> tuple[Vectors, dict[int, TextFailure]]:
    """The vectors of a result with the first `dimensions` numbers each, and the failed ones by index.

    Cut vectors are scaled to unit norm again. What is not failed and not finite counts as failed: a NaN
    never leaves the gateway as a vector.

    Raises:
        Problem: The model has fewer dimensions.
    """
    vectors = result.vectors
    failures = {failure.index: failure for failure in result.failures}
    own = vectors.shape[1]
    if dimensions is not None and dimensions != own and len(failures) < len(vectors):
        if dimensions > own:
            raise Problem(
                400,
                f"dimensions is {dimensions}, and the model's vectors have {own}",
                code="invalid_dimensions",
                param="dimensions",
            )
        vectors = vectors[:, :dimensions]
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            vectors = vectors / norms
    finite = np.isfinite(vectors)
    if not finite.all():
        for row in np.flatnonzero(~finite.all(axis=1)).tolist():
            failures.setdefault(row, TextFailure(row, "the backend's vector is not finite"))
    return np.ascontiguousarray(vectors, dtype=np.float32), failures


def openai_rows(
    vectors: Vectors, errors: Mapping[int, Mapping[str, Any]], *, as_base64: bool
) -> Iterator[bytes]:
    """The elements of OpenAI's `data`, some at a time, as JSON; rows named in `errors` have no embedding."""
    for start in range(0, len(vectors), _ROWS):
        rows = []
        for index in range(start, min(start + _ROWS, len(vectors))):
            row: dict[str, Any] = {"object": "embedding", "index": index}
            if index in errors:
                row |= {"embedding": None, "error": errors[index]}
            elif as_base64:
                row["embedding"] = base64.b64encode(vectors[index].astype("<f4", copy=False).data).decode()
            else:
                row["embedding"] = vectors[index]
            rows.append(row)
        yield _inner(rows)


def plain_rows(vectors: Vectors) -> Iterator[bytes]:
    """The elements of Ollama's `embeddings`, some at a time, as JSON."""
    for start in range(0, len(vectors), _ROWS):
        yield _inner(vectors[start : start + _ROWS])


def wrap(head: bytes, rows: Iterator[bytes], tail: Mapping[str, Any]) -> bytes:
    """One JSON object: `head`, which ends in an open list, the list's elements, and further members."""
    return head + b",".join(rows) + b"]," + orjson.dumps(tail)[1:]


def _inner(values: object) -> bytes:
    """The elements of a JSON list without its brackets."""
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
