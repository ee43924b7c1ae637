"""The token budget: what is chosen of what was measured, what memory allows, and what is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedctl.errors import Cancelled
from tests.support.late import late
from tests.support.tiny_models import XLM_R, tiny_model

torch = late("torch")
tuning = late("embedctl.encoder.tuning")
architecture = late("embedctl.encoder.architecture")
fast = late("embedctl.encoder.fast")
loading = late("embedctl.encoder.loading")

pytestmark = pytest.mark.torch

GIB = 2**30


def count(texts: Sequence[str]) -> int:
    return sum(2 + len(text.split()) for text in texts)


@dataclass
class Device:
    """Answers with scripted rates, tokens per second by budget."""

    rates: dict[int, float]
    fits: int = 10**9

    def __post_init__(self) -> None:
        self.calls: list[int] = []

    def measure(self, budget: int, texts: list[str]) -> float:
        if budget > self.fits:
            raise MemoryError
        self.calls.append(budget)
        return count(texts) / self.rates[budget]


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({512: 900.0, 1024: 1000.0, 2048: 1010.0, 4096: 1015.0}, 1024),
        ({512: 995.0, 1024: 1000.0, 2048: 700.0}, 512),
        ({512: 100.0, 1024: 200.0, 2048: 400.0}, 2048),
    ],
)
def test_the_smallest_budget_within_two_per_cent_of_the_best_is_taken(
    rates: dict[int, float], best: int
) -> None:
    tuned = tuning.tune(Device(rates).measure, sorted(rates), count=count)
    assert tuned.token_budget == best
    assert tuned.tokens_per_s == pytest.approx(rates)


def test_candidates_are_measured_in_turns_there_and_back() -> None:
    device = Device({512: 1.0, 1024: 1.0})
    tuning.tune(device.measure, (512, 1024), count=count)
    assert device.calls == [512, 512, 512, 1024, 1024, 512, 512, 1024]


def test_budgets_that_do_not_fit_are_left_out_and_too_little_for_any_is_an_error() -> None:
    rates = {512: 100.0, 1024: 200.0, 2048: 400.0}
    assert tuning.tune(Device(rates, fits=1024).measure, sorted(rates), count=count).token_budget == 1024
    with pytest.raises(MemoryError):
        tuning.tune(Device(rates, fits=100).measure, sorted(rates), count=count)


def test_tuning_can_be_cancelled_between_trials() -> None:
    device = Device({512: 1.0, 1024: 1.0})

    def stop() -> None:
        if len(device.calls) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        tuning.tune(device.measure, (512, 1024), count=count, cancelled=stop)
    assert len(device.calls) == 4


def test_the_sample_has_passages_of_many_lengths_and_is_always_the_same() -> None:
    texts = tuning.sample(20_000, count)
    lengths = sorted(count([text]) for text in texts)
    assert 20_000 <= sum(lengths) < 21_500
    assert 120 < sum(lengths) / len(lengths) < 350
    assert lengths[0] < 80 and lengths[-1] > 400
    assert texts == tuning.sample(20_000, count)


# Memory -------------------------------------------------------------------------------------------------


def pool(monkeypatch: pytest.MonkeyPatch, *, available: int, total: int = 120 * GIB) -> None:
    monkeypatch.setattr(
        tuning.psutil, "virtual_memory", lambda: SimpleNamespace(available=available, total=total)
    )


def shared_gpu(monkeypatch: pytest.MonkeyPatch, *, integrated: bool) -> torch.device:
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(is_integrated=integrated)
    )
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * GIB, 140 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: GIB)
    return torch.device("cuda", 0)


def test_a_gpu_that_shares_the_pool_has_what_is_available_above_the_floor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The driver says 3 GiB are free; 20 GiB can be reclaimed from caches (unsloth#10704)."""
    pool(monkeypatch, available=20 * GIB)
    assert tuning.free_bytes(shared_gpu(monkeypatch, integrated=True))[0] == 12 * GIB
    assert tuning.free_bytes(torch.device("cuda", 0), floor=16 * GIB)[0] == 4 * GIB
    pool(monkeypatch, available=7 * GIB)
    assert tuning.free_bytes(torch.device("cuda", 0))[0] == 0


def test_a_card_of_its_own_has_what_its_driver_says_and_what_torch_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool(monkeypatch, available=0)
    assert tuning.free_bytes(shared_gpu(monkeypatch, integrated=False))[0] == 4 * GIB


def test_the_budget_shrinks_with_the_pool_and_says_so_but_never_to_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = architecture.recognise(loading.load_model(tiny_model(XLM_R), device="cpu"))
    each = tuning.bytes_per_token(model)
    assert each == (8 * 32 + 2 * 64) * 4
    floor = 8 * GIB
    pool(monkeypatch, available=floor + 2 * 8192 * each)
    assert tuning.affordable(model, 8192) == (8192, None)
    pool(monkeypatch, available=floor + 2 * 1000 * each)
    budget, note = tuning.affordable(model, 8192)
    assert budget == 1000
    assert note is not None and "1000 tokens instead of 8192" in note
    pool(monkeypatch, available=GIB)
    assert tuning.affordable(model, 8192)[0] == tuning.LEAST_BUDGET
    assert tuning.affordable(model, 100)[0] == 100


def test_a_load_into_a_full_pool_takes_small_batches_and_notes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pool(monkeypatch, available=GIB)
    encoder = fast.FastEncoder.build(loading.load_model(tiny_model(XLM_R), device="cpu"))
    assert encoder.token_budget == tuning.LEAST_BUDGET
    assert any("instead of 2048" in note for note in encoder.info.notes)


# Remembered ---------------------------------------------------------------------------------------------


def test_what_was_measured_is_remembered_beside_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "data" / "budgets.json"
    assert tuning.recall(file, "a") is None
    tuning.remember(file, "a", tuning.Tuned(1024, {512: 10.4, 1024: 20.6}))
    tuning.remember(file, "b", tuning.Tuned(4096, {4096: 1.0}))
    assert (tuning.recall(file, "a"), tuning.recall(file, "b"), tuning.recall(file, "c")) == (
        1024,
        4096,
        None,
    )
    assert json.loads(file.read_text())["a"]["tokens_per_s"] == {"512": 10, "1024": 21}
    assert [path.name for path in file.parent.iterdir()] == ["budgets.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 3}', '{"a": {"token_budget": "x"}}',
                                     '{"a": {"token_budget": -5}}'])  # fmt: skip
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "budgets.json"
    file.write_text(content)
    assert tuning.recall(file, "a") is None
    tuning.remember(file, "a", tuning.Tuned(512, {512: 1.0}))
    assert tuning.recall(file, "a") == 512


def test_another_device_model_or_dtype_is_measured_anew(tmp_path: Path) -> None:
    keys = {
        tuning.key_of("one", torch.float16, "GB10"),
        tuning.key_of("one", torch.float16, "H200"),
        tuning.key_of("another", torch.float16, "GB10"),
        tuning.key_of("one", torch.bfloat16, "GB10"),
    }
    assert len(keys) == 4
    assert all(torch.__version__ in key for key in keys)


def test_a_loaded_model_is_tuned_with_real_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "CPU_CANDIDATES", (64, 256))
    monkeypatch.setattr(tuning, "_SECONDS", 0.02)
    encoder = fast.FastEncoder.build(loading.load_model(tiny_model(XLM_R), device="cpu"))
    before = encoder.encode(["same", "vectors"]).vectors
    tuned = encoder.tune()
    assert set(tuned.tokens_per_s) == {64, 256}
    assert tuned.token_budget in (64, 256)
    assert encoder.token_budget == tuning.CPU_DEFAULT
    assert (encoder.encode(["same", "vectors"]).vectors == before).all()
    with pytest.raises(Cancelled):
        encoder.tune(cancelled=lambda: True)
