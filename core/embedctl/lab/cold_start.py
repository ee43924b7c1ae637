"""The cold start: from no process to the first vector, apart from everything that comes after."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embedctl.lab.stages import Bench, Rows, measurement, shortened
from embedctl.lab.statistics import percentile_interval
from embedctl.lab.targets import Answer, Start, Tally, Target, send
from embedctl.lab.window import SampleWindow
from embedctl.records import Figure, Measurement

_GUESS_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The load that began this run, or restarts. Only what this run loaded is unloaded for a restart."""

    repeats: int = 0
    """Restarts; with none, the load at the run's beginning is all there is."""
    drop_cache: bool = False
    """Ask the kernel to forget the model's files first."""

    @property
    def name(self) -> str:
        return "disk start" if self.drop_cache else "cold start"

    def wants(self, bench: Bench) -> float:
        return self.repeats * self.least(bench)

    def least(self, bench: Bench) -> float:
        """One restart of each, by how long the load at the run's beginning took."""
        if not self.repeats:
            return 0.0
        return sum(
            target.first_start.seconds if target.first_start else _GUESS_S
            for target in bench.targets
            if not self._why_not(target)
        )

    def _why_not(self, target: Target) -> str:
        """Why it is not restarted: a start from a warm cache is no start from disk. Empty if it is."""
        if target.restart is None:
            return target.why_no_restart
        return target.why_no_disk_start if self.drop_cache else ""

    def obstacle(self, bench: Bench) -> str:
        return ""

    def longest(self, bench: Bench) -> int:
        return 0

    def measure(self, bench: Bench) -> Rows:
        rows = []
        share = bench.allowed / len(bench.targets)
        for number, target in enumerate(bench.targets):
            bench.report(number / len(bench.targets))
            with bench.sampling() as window:
                rows.append(self._one(bench, target, window, bench.pace.now() + share))
        fewest = min((row.requests for row in rows if row.requests), default=self.repeats)
        notes = (
            (shortened(self.name, f"{fewest} of {self.repeats} restarts"),) if fewest < self.repeats else ()
        )
        return Rows(tuple(rows), notes=notes)

    def _one(self, bench: Bench, target: Target, window: SampleWindow, end: float) -> Measurement:
        starts: list[Start] = []
        firsts: list[float] = []
        tally = Tally()
        if not self.repeats and target.first_start is not None:
            self._add(target.first_start, bench.first.get(target.name), starts, firsts, tally)
        why = self._why_not(target)
        for _ in range(0 if why else self.repeats):
            assert target.restart is not None
            bench.cancel.raise_if_cancelled()
            if starts and bench.pace.now() + starts[-1].seconds > end:
                break
            start = target.restart(self.drop_cache)
            self._add(start, first_answer(target, bench), starts, firsts, tally)
        ready = [start.seconds * 1e3 for start in starts]
        scenario = starts[-1].scenario if starts else why
        return measurement(
            target, "cold start", self.name, 1, tally, window, seconds=0.0, counted=False,
            figures=(
                _median("ready_ms", ready, scenario),
                _median("first_vector_ms", firsts, "the first request once it is ready"),
                *(
                    Figure(f"step: {step}", seconds * 1e3, "ms")
                    for step, seconds in (starts[-1].steps if starts else ())
                ),
            ),
            series={"ready_ms": tuple(ready), "first_vector_ms": tuple(firsts)},
        )  # fmt: skip

    @staticmethod
    def _add(
        start: Start, answer: Answer | None, starts: list[Start], firsts: list[float], tally: Tally
    ) -> None:
        """The row's latency is the whole way: start, ready, first vector. A start whose first answer nobody
        timed has none."""
        starts.append(start)
        if answer is None:
            return
        if not answer.error:
            firsts.append(answer.seconds * 1e3)
        tally.add(Answer(start.seconds + answer.seconds, answer.error), 1, 0)


def first_answer(target: Target, bench: Bench) -> Answer:
    """To be asked for before anything else is sent."""
    return send(target, [bench.workload.query(0)], bench.pace.now)


def _median(name: str, values: list[float], note: str) -> Figure:
    found = percentile_interval(values, 0.50)
    if found is None:
        return Figure(name, None, "ms", note=note)
    return Figure(name, found.estimate, "ms", found.low, found.high, note)


def can_drop_page_cache() -> bool:
    return hasattr(os, "posix_fadvise")  # macOS has it not


def drop_page_cache(folder: Path) -> None:
    """Ask the kernel to forget a folder's files. Pages that some process maps stay: unload first."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
