"""What a stored row bears: nothing of speed where vectors were wrong, texts cut, or requests failed. Pure.

A run gives itself no verdict on such rows; whoever reads it later, as `compare` and `claims` do, must not
give one either.
"""

from __future__ import annotations

from embedctl.lab.reading import MOST_FAILED, UNREAD
from embedctl.lab.resuming import failed_gate, gate_note
from embedctl.records import BackendName, Measurement, Run


def wrong_vectors(run: Run, backend: BackendName) -> str:
    """How the backend failed the run's correctness gate; empty if it did not."""
    if backend not in failed_gate(run):
        return ""
    begin = gate_note(backend, "")
    return "it failed the gate: " + next(
        note.removeprefix(begin) for note in run.notes if note.startswith(begin)
    )


def no_speed(run: Run, row: Measurement) -> str:
    """Why the row says nothing of the backend's speed; empty if it does."""
    if found := wrong_vectors(run, row.backend):
        return found
    if any(note.startswith(f"{row.backend}, {row.shape}: {UNREAD}") for note in run.notes):
        return "it does not read texts of this length to the end"
    if row.kind != "quality" and row.errors > MOST_FAILED * row.requests:
        return f"{row.errors:,} of {row.requests:,} requests failed"
    return ""
