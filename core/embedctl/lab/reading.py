"""Whether a backend reads what it is measured with to the end: one that cuts in silence is fast at the rest.

After a row, two texts as long as its longest are sent that differ in their last word alone. A backend that
gives both the same vector has not read so far (ollama#14259), and the row is no evidence of its speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from embedctl.lab.limits import SHORTEST, Ruler, why_unread
from embedctl.lab.stages import Bench, Rows, Stage
from embedctl.lab.targets import Target
from embedctl.lab.tokens import TokenCounter
from embedctl.records import BackendName, EmbedResult, Measurement

_PAIR: Final = 2
MOST_FAILED: Final = 0.01
"""Of a row's requests. What failed has no latency, and those that did not are no fair sample any more."""
UNREAD: Final = "no verdict and no tokens/s, for it does not read texts of this length to the end"
"""In the note on a row whose texts the backend cuts, after its name and shape."""


@dataclass(slots=True)
class Reading:
    """What the targets were seen to read; only what does not follow from that is asked for."""

    bench: Bench
    _ruler: Ruler | None = None
    _read: dict[BackendName, int] = field(default_factory=dict)
    """The longest text that was read to its end."""
    _unread: dict[BackendName, tuple[int, str]] = field(default_factory=dict)
    """The shortest that was not, and how that showed."""

    def seconds(self, stage: Stage) -> float:
        """About how long it takes to ask for this stage, by what was measured so far."""
        length = stage.longest(self.bench)
        if all(self._is_known(target.name, length) for target in self.bench.targets):
            return 0.0
        return _PAIR * self.bench.text_seconds(1, length)

    def unread(self, stage: Stage) -> dict[BackendName, str]:
        """The targets that do not read this stage's longest text to its end, and how that shows.

        Raises:
            Cancelled: The run was cancelled.
        """
        length = stage.longest(self.bench)
        found = {}
        for target in self.bench.targets:
            if target.name in self.bench.faulty or not length:
                continue
            if not self._is_known(target.name, length):
                self._ask(target, length)
            shortest, why = self._unread.get(target.name, (length + 1, ""))
            if shortest <= length:
                found[target.name] = why
        return found

    def _is_known(self, name: BackendName, length: int) -> bool:
        shortest, _ = self._unread.get(name, (length + 1, ""))
        return length <= self._read.get(name, 0) or length >= shortest

    def _ask(self, target: Target, length: int) -> None:
        count = self.bench.count_tokens
        self._ruler = self._ruler or Ruler(count)

        def embed(text: str) -> EmbedResult:
            self.bench.cancel.raise_if_cancelled()
            return target.embed([text], 1)

        why = why_unread(embed, self._ruler, _within(self._ruler, count, max(length, SHORTEST)))
        if why:
            self._unread[target.name] = length, why
        else:
            self._read[target.name] = length


def _within(ruler: Ruler, count: TokenCounter | None, tokens: int) -> int:
    """The ruler's length for a text of at most `tokens` tokens: a word may be several."""
    if ruler.unit == "tokens" or count is None:
        return tokens
    length = tokens
    while length > SHORTEST and (found := count([ruler.text(length)])) > tokens:
        length = max(SHORTEST, min(length - 1, length * tokens // found))
    return length


def withheld(rows: Rows, unread: Mapping[BackendName, str]) -> Rows:
    """The rows without the verdicts that they do not bear, and without the tokens/s of unread tokens.

    Goodput counts what failed as not answered in time, and so bears failures.
    """
    notes = [*rows.notes]
    barred: set[str] = set()
    measurements: list[Measurement] = []
    for row in rows.measurements:
        why = unread.get(row.backend)
        if why is not None:
            barred |= {"latency", "throughput", "p95", "goodput"}
            notes.append(f"{row.backend}, {row.shape}: {UNREAD} ({why})")
            row = replace(row, tokens_per_s=None)
        if row.errors > MOST_FAILED * row.requests:
            barred |= {"latency", "throughput", "p95"}
            if _any_of(rows, barred):
                notes.append(
                    f"{row.backend}, {row.shape}: no verdict, {row.errors:,} of {row.requests:,} requests "
                    "failed"
                )
        measurements.append(row)
    kept = tuple(one for one in rows.comparisons if one.metric not in barred)
    return Rows(tuple(measurements), kept, tuple(notes))


def _any_of(rows: Rows, metrics: set[str]) -> bool:
    return any(one.metric in metrics for one in rows.comparisons)
