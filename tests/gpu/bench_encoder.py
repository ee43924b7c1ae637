"""How fast the encoder is on this GPU, beside sentence-transformers' own paths and the device's limits.

    python -m tests.gpu.bench_encoder MODEL_FOLDER [--json FILE] [--quick]

MODEL_FOLDER is a sentence-transformers folder (BAAI/bge-m3, or a model of its shape with random weights:
speed does not depend on the weights, except that the quality of 8-bit products does). Four paths run in this
process, one after the other:

- `service`: float32, `encode`, batches of 32, flash attention off: a plain service as many are written;
- `encode`: float16, `encode`, batches of 256;
- `fast`: float16, `FastEncoder`;
- `eight`: the same with 8-bit products, where the device has them and they pass their gate.

Printed last: one table with ratios, memory, and the share of the measured limits that the fast paths reach.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel

from embedctl.encoder.fast import FastEncoder
from embedctl.encoder.loading import load_model
from embedctl.engine.opening import open_engine
from embedctl.worker.client import WorkerClient
from embedctl.worker.protocol import WorkerOptions
from tests.support.boundary import Boundary, across_the_boundary

WORDS = """
the of and a to in is was for on as with by that at from his it an were are which this also be has or
had first one their its new after but who not they have two her she been other when time during there
into all school city film team season world state university national year war house music game
company system energy water government development international research language history science
computer memory der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch
es an werden aus er de la que el en y a los del se las por un para con no una su al lo como más pero
sus le ya o este и в не на я быть он с что а по это она этот к но они мы весь который из у 日本 東京 大学 世界
研究 時間
""".split()  # noqa: SIM905


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="only the fast path, fewer texts")
    parser.add_argument("--budget", type=int, help="tokens per batch of the fast path")
    parser.add_argument("--attention", default="auto")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: torch.cuda.is_available() is false")
    figures = measure(args)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(table(figures))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    figures: dict[str, Any] = {
        "device": properties.name,
        "torch": torch.__version__,
        "matmul_tflops": matmul_tflops(),
        "matmul_8_bit_tflops": matmul_8_bit_tflops(),
        "copy_tb_per_s": copy_tb_per_s(),
        "paths": {},
    }
    if not args.quick:
        figures["start_s"] = start_seconds(args.model)
        figures["engine"] = asdict(through_the_engine(args.model))
    texts, sample, vectors = measure_fast(args, figures)
    measure_eight_bit(args, texts, sample, vectors, figures)
    if not args.quick:
        measure_service(args, texts, sample[:96], vectors[:96], figures)
    return figures


def measure_fast(args: argparse.Namespace, figures: dict[str, Any]) -> tuple[Texts, list[str], Any]:
    """The paths in float16; returns the texts, some of them, and the fast path's vectors of those."""
    release()
    before = process_bytes()
    torch.cuda.reset_peak_memory_stats()  # the ceilings above took gigabytes
    started = time.perf_counter()
    model = load_model(args.model, device="cuda", dtype="float16")
    loaded = time.perf_counter()
    fast = FastEncoder.build(model, token_budget=args.budget, attention=args.attention)
    figures["load_s"], figures["build_s"] = loaded - started, time.perf_counter() - loaded
    print("built", fast.info, f"in {figures['build_s']:.2f} s", flush=True)
    torch.cuda.empty_cache()
    figures["memory_after_load"] = {"before": before, "after": process_bytes()}

    texts = Texts(model, passages=2048 if args.quick else 8192, queries=2048)
    figures["tokens_per_query"] = texts.tokens_per(texts.queries)
    figures["tokens_per_passage"] = texts.tokens_per(texts.passages)
    figures["flop_per_token"] = 2 * sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if "encoder.layer." in name and isinstance(module, torch.nn.Linear)
    )
    figures["first_call_excess_ms"] = first_call_excess_ms(fast, texts)
    figures["paths"]["fast"] = run_fast(fast, texts)
    figures["paths"]["fast"]["peak_bytes"] = torch.cuda.max_memory_allocated()
    figures["memory_after_traffic"] = process_bytes()
    sample = texts.passages[:1024]
    vectors = fast.encode(sample).vectors
    if not args.quick:
        figures["paths"]["encode"] = run_path(
            lambda batch: model.encode(batch, batch_size=256, show_progress_bar=False),
            texts, singles=60, passages=1536, repeats=1,
        )  # fmt: skip
    return texts, sample, vectors


def measure_eight_bit(
    args: argparse.Namespace, texts: Texts, sample: list[str], expected: Any, figures: dict[str, Any]
) -> None:
    """`expected`: the float16 vectors of `sample`."""
    release()
    model = load_model(args.model, device="cuda", dtype="float16")
    encoder = FastEncoder.build(model, token_budget=args.budget, attention=args.attention, eight_bit=True)
    print("built", encoder.info, flush=True)
    figures["eight_bit"] = {"dtype": encoder.info.dtype, "notes": encoder.info.notes}
    if not encoder.info.dtype.startswith("float8"):
        return
    torch.cuda.empty_cache()
    cosines = (encoder.encode(sample).vectors * expected).sum(axis=1)
    figures["eight_bit"] |= {
        "memory_after_load": process_bytes(),
        "least_cosine_to_float16": float(cosines.min()),
        "median_cosine_to_float16": float(np.median(cosines)),
    }
    figures["paths"]["eight"] = run_fast(encoder, texts)


def measure_service(
    args: argparse.Namespace, texts: Texts, sample: list[str], vectors: Any, figures: dict[str, Any]
) -> None:
    """The path in float32; `vectors`: what the fast one in float16 makes of `sample`."""
    release()
    plain = load_model(args.model, device="cuda", dtype="float32")
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        expected = plain.encode(sample, batch_size=1, show_progress_bar=False, normalize_embeddings=True)
        figures["least_cosine_to_float32"] = float((expected * vectors).sum(axis=1).min())
        figures["paths"]["service"] = run_path(
            lambda batch: plain.encode(batch, batch_size=32, show_progress_bar=False),
            texts, singles=60, passages=384, repeats=1,
        )  # fmt: skip


def release() -> None:
    """Give the device back what nothing holds any longer."""
    gc.collect()
    torch.cuda.empty_cache()


def run_fast(encoder: FastEncoder, texts: Texts) -> dict[str, float]:
    figures = run_path(
        lambda batch: encoder.encode(batch).vectors, texts,
        singles=300, passages=len(texts.passages), repeats=3,
    )  # fmt: skip
    long = texts.of_length(8192, 48)
    figures["long_tokens_per_s"] = texts.count(long) / best_seconds(lambda: encoder.encode(long), 2)
    return figures


def first_call_excess_ms(encoder: FastEncoder, texts: Texts) -> float:
    """By how much the first request of a size takes longer than the second, at worst.

    Only requests of sizes that the encoder has not met before tell: to be called straight after its build.
    """
    excess = []
    for count in (1, 2, 3, 5, 9, 17, 33, 50, 65, 100, 150, 300, 600, 1500):
        for some in (texts.queries[:count], texts.passages[:count]):
            first, second = (seconds_of(lambda some=some: encoder.encode(some)) for _ in range(2))
            excess.append((first - second) * 1e3)
    return max(excess)


def seconds_of(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class Texts:
    """Made-up texts with the lengths of real ones: passages of some 210 tokens, queries of some 19."""

    def __init__(self, model: SentenceTransformer, *, passages: int, queries: int) -> None:
        self._tokenizer = model.tokenizer.backend_tokenizer
        self._limit = model.max_seq_length
        self._random = random.Random(7)
        words = self._random.choices(WORDS, k=4000)
        self._tokens_per_word = (self.count([" ".join(words[:2000]), " ".join(words[2000:])]) - 4) / 4000
        lengths = np.random.default_rng(7).lognormal(5.15, 0.62, passages).clip(8, 2300)
        self.passages = [self._text(int(length)) for length in lengths]
        self.queries = [
            self._text(int(length)) for length in np.random.default_rng(8).normal(19, 6, queries).clip(5, 60)
        ]

    def _text(self, tokens: int) -> str:
        count = max(1, round((tokens - 2) / self._tokens_per_word))
        return " ".join(self._random.choices(WORDS, k=count))

    def of_length(self, tokens: int, count: int) -> list[str]:
        """Texts that the limit cuts at `tokens`."""
        return [self._text(int(tokens * 1.3)) for _ in range(count)]

    def count(self, texts: Sequence[str]) -> int:
        """Tokens that are embedded, cut ones left out."""
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._limit)
        return sum(len(encoding) for encoding in self._tokenizer.encode_batch_fast(list(texts)))

    def tokens_per(self, texts: Sequence[str]) -> float:
        return self.count(texts) / len(texts)


def run_path(
    encode: Callable[[list[str]], Any], texts: Texts, *, singles: int, passages: int, repeats: int
) -> dict[str, float]:
    """One path under three loads."""
    for query in texts.queries[:8]:
        encode([query])
    latencies = []
    for query in texts.queries[:singles]:
        started = time.perf_counter()
        encode([query])
        latencies.append((time.perf_counter() - started) * 1e3)
    queries = texts.queries if singles > 100 else texts.queries[:1024]
    query_seconds = best_seconds(lambda: encode(queries), repeats)
    some = texts.passages[:passages]
    passage_seconds = best_seconds(lambda: encode(some), repeats, warm=some[:64], encode=encode)
    figures = {
        "query_p50_ms": statistics.median(latencies),
        "query_p95_ms": sorted(latencies)[int(len(latencies) * 0.95)],
        "queries_per_s": len(queries) / query_seconds,
        "passages_per_s": len(some) / passage_seconds,
        "passage_tokens_per_s": texts.count(some) / passage_seconds,
    }
    print({name: round(value, 2) for name, value in figures.items()}, flush=True)
    return figures


def best_seconds(
    call: Callable[[], Any],
    repeats: int,
    warm: list[str] | None = None,
    encode: Callable[[list[str]], Any] | None = None,
) -> float:
    """The median of `repeats` runs after a warm-up (of all, or of `warm`)."""
    if encode is not None and warm is not None:
        encode(warm)
    else:
        call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def matmul_tflops() -> float:
    """A product of two 8192x8192 float16 matrices of random numbers."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    return 2 * 8192**3 / device_seconds(lambda: a @ b) / 1e12


def matmul_8_bit_tflops() -> float | None:
    """The same with float8 numbers; None where the device has no such product."""
    try:
        a, b = (torch.randn(8192, 8192, device="cuda").to(torch.float8_e4m3fn) for _ in range(2))
        one = torch.ones((), device="cuda")

        def product() -> Any:
            return torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.float16, use_fast_accum=True)

        return 2 * 8192**3 / device_seconds(product) / 1e12
    except (AttributeError, RuntimeError, ValueError) as error:
        print("no 8-bit products:", error)
        return None


def copy_tb_per_s() -> float:
    """A copy of 2 GiB, bytes read and bytes written counted."""
    source = torch.empty(2**31, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * 2**31 / device_seconds(lambda: target.copy_(source)) / 1e12


def device_seconds(call: Callable[[], Any]) -> float:
    for _ in range(3):
        call()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(10):
        call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 10 / 1e3


def process_bytes() -> int | None:
    """Device memory of this process, context included; None where NVML will not say."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            if process.pid == os.getpid() and process.usedGpuMemory:
                return int(process.usedGpuMemory)
        free, total = torch.cuda.mem_get_info()
        return int(
            total - free
        )  # in a container NVML names no process: the whole device, if it is ours alone
    except Exception as error:
        print("no process memory:", error)
        return None


def start_seconds(model: str) -> dict[str, list[float]]:
    """From the start of the worker's process to its first vector; the first leaves what the others need."""
    seconds = []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(3):
            client = WorkerClient(
                WorkerOptions(model, device="cuda", references=scratch), log_file=Path(scratch, "worker.log")
            )
            started = time.perf_counter()
            try:
                client.start(timeout=600)
                client.embed(["a first query"])
                seconds.append(time.perf_counter() - started)
            finally:
                client.stop()
    return {"complete": seconds[:1], "direct": seconds[1:]}


def through_the_engine(model: str) -> Boundary:
    """Single queries through `Engine.embed` and the process boundary, in a home of its own."""
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDCTL_HOME", scratch)
        patch.setenv("EMBEDCTL_MODEL__REPO", str(Path(model).resolve()))
        engine = open_engine(sampling=False)
        try:
            update = engine.load("native").wait(600)
            assert update.failure is None, update.failure
            return across_the_boundary(engine)
        finally:
            engine.close()


def table(figures: dict[str, Any]) -> str:
    paths: dict[str, dict[str, float]] = figures["paths"]
    rows = [
        ("one query, p50, ms", "query_p50_ms", "{:.2f}", True),
        ("queries in bulk, texts/s", "queries_per_s", "{:,.0f}", False),
        ("passages in bulk, texts/s", "passages_per_s", "{:,.0f}", False),
        ("passages in bulk, tokens/s", "passage_tokens_per_s", "{:,.0f}", False),
        ("8,192-token texts, tokens/s", "long_tokens_per_s", "{:,.0f}", False),
    ]
    lines = [
        "| | service | encode | fast | 8-bit | fast/service | fast/encode | 8-bit/fast |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, key, pattern, lower_is_better in rows:
        service, encode, fast, eight = (
            paths.get(path, {}).get(key) for path in ("service", "encode", "fast", "eight")
        )
        cells = [
            "n/a" if value is None else pattern.format(value) for value in (service, encode, fast, eight)
        ]
        for ours, theirs in ((fast, service), (fast, encode), (eight, fast)):
            if ours is None or theirs is None:
                cells.append("")
            else:
                cells.append(f"{theirs / ours if lower_is_better else ours / theirs:.2f}x")
        lines.append("| " + " | ".join([label, *cells]) + " |")
    for path, limit in (("fast", "matmul_tflops"), ("eight", "matmul_8_bit_tflops")):
        if path in paths and figures[limit] is not None:
            rate = paths[path]["passage_tokens_per_s"] * figures["flop_per_token"] / 1e12
            lines.append(
                f"{path}: the layers' products of passages in bulk at {rate:.0f} TFLOP/s, "
                f"{rate / figures[limit]:.0%} of a large product alone"
            )
    memory = figures["memory_after_load"]
    if memory["after"] and figures["memory_after_traffic"]:
        lines.append(
            f"process memory after load, graphs included: {memory['after'] / 2**30:.2f} GiB, "
            f"after all that traffic {figures['memory_after_traffic'] / 2**30:.2f}"
        )
    excess = figures["first_call_excess_ms"]
    lines.append(f"the first request of a size takes longer than the second by at most {excess:.1f} ms")
    eight_bit = figures["eight_bit"]
    lines.append(f"8-bit: {eight_bit['dtype']}; {'; '.join(eight_bit['notes'])}")
    if "least_cosine_to_float16" in eight_bit:
        lines.append(
            f"8-bit passages: least cosine to float16 {eight_bit['least_cosine_to_float16']:.4f}, "
            f"median {eight_bit['median_cosine_to_float16']:.4f}"
        )
    if "start_s" in figures:
        for way, seconds in figures["start_s"].items():
            times = ", ".join(f"{each:.1f} s" for each in seconds)
            lines.append(f"process start to first vector, {way} load: {times}")
    if "engine" in figures:
        lines.append(str(Boundary(**figures["engine"])))
    if "least_cosine_to_float32" in figures:
        lines.append(f"least cosine to float32: {figures['least_cosine_to_float32']:.6f}")
    with_8_bits = figures["matmul_8_bit_tflops"]
    lines.append(
        f"{figures['device']}, torch {figures['torch']}: "
        f"matrix products {figures['matmul_tflops']:.0f} TFLOP/s "
        f"({'n/a' if with_8_bits is None else f'{with_8_bits:.0f}'} with 8 bits), "
        f"copies {figures['copy_tb_per_s']:.2f} TB/s; {figures['tokens_per_query']:.1f} tokens a query, "
        f"{figures['tokens_per_passage']:.0f} a passage; loaded in {figures['load_s']:.1f} s, "
        f"built in {figures['build_s']:.1f} s"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
