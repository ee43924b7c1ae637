"""Norms and cosines of vectors, which need not be of unit norm. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Cosines = NDArray[np.float64]
    """NaN where one of the two has no vector."""


def norms(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Length of each row of shape (n, dimension); NaN for a row that is not finite."""
    found = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return np.where(np.isfinite(found), found, np.nan)


def cosines(first: NDArray[Any], second: NDArray[Any]) -> Cosines:
    """Cosine row by row; NaN where a row is not finite or zero, and everywhere if the widths differ.

    Args:
        first: Shape (n, dimension).
        second: As many rows.
    """
    if first.shape != second.shape:
        return np.full(len(first), np.nan)
    a, b = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.where(np.isfinite(found), np.clip(found, -1.0, 1.0), np.nan)


def cosine_matrix(first: NDArray[Any], second: NDArray[Any]) -> Cosines:
    """Cosine of every row with every row, shape (n, m); NaN where a row is not finite or zero.

    Args:
        first: Shape (n, dimension).
        second: Shape (m, dimension).
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    return np.where(np.isfinite(found), np.clip(found, -1.0, 1.0), np.nan)
