"""Faults of time and memory, planted in a local server that speaks Ollama's protocol; on the real clock.

Nothing here depends on how fast this machine is, as long as it answers one text within a tenth of a second.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from embedctl.lab.closed_loop import ClosedLoop
from embedctl.lab.open_loop import CAPACITY, OpenLoop
from embedctl.lab.overhead import OWN_SHARE, overhead_note
from embedctl.lab.soak import Soak
from embedctl.lab.statistics import percentile
from embedctl.lab.targets import RealPace, Target
from embedctl.lab.window import SampleWindow
from embedctl.progress import CancelToken
from embedctl.records import EmbedResult, Measurement, Provenance, Sample
from tests.support.bench_targets import real_bench, served
from tests.support.lab import Scripted, VirtualPace, unit_vectors
from tests.support.ollama_faults import Leaks, SlowStart, Stalls

MIB = 1024**2


def value(row: Measurement, name: str) -> float:
    figure = row.figure(name)
    assert figure is not None and figure.value is not None, figure
    return figure.value


def test_a_slow_warm_up_of_the_server_is_found_and_kept_out_of_the_row() -> None:
    with served(fault=SlowStart(2, 0.2)) as target:
        stage = ClosedLoop("one text", 1, per_block=10, blocks=2, budget=20.0)
        rows = stage.measure(real_bench(target))
    (row,) = rows.measurements
    assert row.series["warm_up_ms"][0] > 200 > max(row.p50_ms or 0.0, row.series["warm_up_ms"][-1])
    assert value(row, "warm_up_requests") >= 2 and value(row, "warm_up_ms") > 300
    assert any(note.startswith("ollama, one text: slow warm-up, the first ") for note in rows.notes)


def test_a_stall_of_the_server_shows_in_p99_from_the_intended_times_and_is_named() -> None:
    """200 ms every 2 s, under 150 texts a second from as many clients as a load has."""
    with served(fault=Stalls(0.2, first=0.5, every=2.0)) as target:
        bench = real_bench(target)
        bench.done.append(
            Measurement("ollama", CAPACITY, 1, 1, 0, (1.0,), 1.0, None, "", 500.0, None, None, None, "")
        )
        rows = OpenLoop(0.3, length=2.6, blocks=1).measure(bench)
    (row,) = rows.measurements
    # Of 390 texts about 30 are due in the first stall: half of them wait for 100 ms or more.
    assert value(row, "p99_ms") > 100
    assert sum(latency > 50 for latency in row.latencies_ms) > 0.03 * len(row.latencies_ms)
    assert value(row, "stalls") >= 1
    assert any(note.startswith("ollama, load 30 %: stalls, ") for note in rows.notes)


def sampled(held_at: Callable[[float], float]) -> Callable[[], object]:
    """A window that a thread fills with the server's memory, a hundred times a second."""

    @contextmanager
    def window() -> Iterator[SampleWindow]:
        made, stop = SampleWindow(), threading.Event()

        def fill() -> None:
            while not stop.wait(0.01):
                at = time.time()
                made.see(Sample(at, {"ollama_rss": held_at(at)}, {"ollama_rss": Provenance("planted")}))

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            stop.set()
            thread.join()

    return window


@pytest.mark.parametrize(("leak", "said"), [(MIB, "leak"), (0, "no growth that matters")])
def test_a_leak_of_the_server_is_found_with_its_slope(leak: int, said: str) -> None:
    fault = Leaks(200.0 * MIB, float(leak))
    with served(fault=fault) as target:
        bench = replace(real_bench(target), sampling=sampled(fault.held_at))  # type: ignore[arg-type]
        rows = Soak(0.7).measure(bench)
    growth = rows.measurements[0].figure("growth_bytes_per_hour")
    assert growth is not None and growth.note == said
    assert growth.value == pytest.approx(3600 * leak, rel=0.01)
    assert [note for note in rows.notes if "leak, memory grows by" in note] == [
        note for note in rows.notes if said == "leak"
    ]


# The lab's own share


def test_the_labs_own_share_is_under_a_twentieth_of_a_10_ms_answer() -> None:
    """By the backend's own clock, so that a machine that wakes it late makes no difference."""
    own: list[float] = []

    def embed(texts: Sequence[str], batch_size: int | None) -> EmbedResult:
        started = time.perf_counter()
        time.sleep(0.010)
        result = EmbedResult(unit_vectors(texts), "native", None, (), (), 0.0)
        own.append((time.perf_counter() - started) * 1e3)
        return result

    mark = Scripted("native", VirtualPace(), lambda n: 0.0).target().fingerprint
    stage = ClosedLoop("one text", 1, per_block=20, blocks=2, budget=20.0)
    rows = stage.measure(real_bench(Target("native", embed, mark)))
    seen = rows.measurements[0].latencies_ms
    added = [latency - taken for latency, taken in zip(seen, own[-len(seen) :], strict=True)]
    share = (percentile(added, 0.5) or 0.0) / 10
    assert -0.001 < share < 0.05


def test_the_share_that_a_run_states_is_what_the_lab_adds() -> None:
    note = overhead_note(RealPace(CancelToken()))
    told = re.match(rf"{OWN_SHARE}: ([\d.]+) µs a request with a target that does nothing; at most ", note)
    assert told is not None and float(told[1]) / 10_000 < 0.05
