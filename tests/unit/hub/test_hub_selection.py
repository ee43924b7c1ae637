"""Which files of a repository are chosen."""

from __future__ import annotations

import pytest

from embedctl.hub.selection import lacks_shards, pickled_weights, select_files

# The large files as the Hub states them; sizes of pictures and small files are approximate.
BGE_M3_SIZES = {
    ".gitattributes": 1_627,
    "1_Pooling/config.json": 191,
    "README.md": 15_822,
    "colbert_linear.pt": 2_100_674,
    "config.json": 687,
    "config_sentence_transformers.json": 123,
    "imgs/bm25.jpg": 132_093,
    "imgs/long.jpg": 485_432,
    "long.jpg": 126_894,
    "modules.json": 349,
    "onnx/Constant_7_attr__value": 65_552,
    "onnx/config.json": 698,
    "onnx/model.onnx": 724_923,
    "onnx/model.onnx_data": 2_266_820_608,
    "onnx/sentencepiece.bpe.model": 5_069_051,
    "onnx/special_tokens_map.json": 964,
    "onnx/tokenizer.json": 17_082_821,
    "onnx/tokenizer_config.json": 1_173,
    "pytorch_model.bin": 2_271_145_830,
    "sentence_bert_config.json": 54,
    "sentencepiece.bpe.model": 5_069_051,
    "sparse_linear.pt": 3_516,
    "special_tokens_map.json": 964,
    "tokenizer.json": 17_098_108,
    "tokenizer_config.json": 444,
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def test_bge_m3_costs_2_3_gb_and_not_4_6() -> None:
    chosen = select_files(BGE_M3_SIZES, MODULES)
    assert chosen == (
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "pytorch_model.bin",
    )
    assert sum(BGE_M3_SIZES[path] for path in chosen) == pytest.approx(2.288e9, rel=0.001)
    assert sum(BGE_M3_SIZES.values()) > 4.5e9


def test_heads_come_only_when_asked() -> None:
    assert not {"colbert_linear.pt", "sparse_linear.pt"} & set(select_files(BGE_M3_SIZES, MODULES))
    assert {"colbert_linear.pt", "sparse_linear.pt"} <= set(
        select_files(BGE_M3_SIZES, MODULES, include_heads=True)
    )


def test_safetensors_are_preferred_over_every_other_copy() -> None:
    files = [*BGE_M3_SIZES, "model.safetensors", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"]
    chosen = select_files(files, MODULES)
    assert "model.safetensors" in chosen
    assert not {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"} & set(chosen)


def test_shards_come_with_their_index_and_without_the_pickled_copy() -> None:
    shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    files = ["config.json", "model.safetensors.index.json", *shards, "pytorch_model.bin"]
    assert set(select_files(files, None)) == {"config.json", "model.safetensors.index.json", *shards}


def test_without_tokenizer_json_the_vocabulary_comes_instead() -> None:
    files = [path for path in BGE_M3_SIZES if path != "tokenizer.json"]
    assert "sentencepiece.bpe.model" in select_files(files, MODULES)
    assert "onnx/sentencepiece.bpe.model" not in select_files(files, MODULES)


def test_a_dense_module_brings_its_own_weights_once() -> None:
    files = [
        "config.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "2_Dense/pytorch_model.bin",
        "3_Unlisted/config.json",
    ]
    modules = [*MODULES[:2], {"idx": 2, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    assert set(select_files(files, modules)) == set(files) - {
        "2_Dense/pytorch_model.bin",
        "3_Unlisted/config.json",
    }


def test_a_transformer_in_a_folder_of_its_own_is_taken_whole_but_once() -> None:
    files = [
        "modules.json",
        "0_Transformer/config.json",
        "0_Transformer/sentence_bert_config.json",
        "0_Transformer/tokenizer.json",
        "0_Transformer/vocab.txt",
        "0_Transformer/pytorch_model.bin",
        "0_Transformer/tf_model.h5",
        "0_Transformer/onnx/model.onnx",
        "0_Transformer/onnx/config.json",
        "1_Pooling/config.json",
    ]
    modules = [{"path": "0_Transformer", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]
    assert set(select_files(files, modules)) == {
        "modules.json",
        "0_Transformer/config.json",
        "0_Transformer/sentence_bert_config.json",
        "0_Transformer/tokenizer.json",
        "0_Transformer/pytorch_model.bin",
        "1_Pooling/config.json",
    }


def test_a_plain_transformers_repository_needs_no_module_list() -> None:
    files = ["config.json", "tokenizer.json", "model.safetensors", "README.md", "onnx/model.onnx"]
    assert set(select_files(files, None)) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_a_router_brings_the_folders_of_its_routes() -> None:
    files = ["modules.json", "router_config.json", "query_0/config.json", "query_0/model.safetensors"]
    modules = [{"path": "", "type": "sentence_transformers.models.Router"}]
    assert set(select_files([*files, "onnx/config.json"], modules)) == set(files)


def test_a_module_path_cannot_lead_out_of_the_repository() -> None:
    modules = [
        {"path": "../other", "type": "Transformer"},
        {"path": "/etc", "type": "Dense"},
        {"path": "1_Pooling", "type": "Pooling"},
    ]
    files = ["config.json", "/etc/passwd.json", "../other/config.json", "1_Pooling/../../config.json"]
    assert select_files(files, modules) == ("config.json",)


def test_every_pickled_checkpoint_becomes_one_safetensors_file() -> None:
    paths = ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "2_Dense/pytorch_model.bin"]
    assert pickled_weights([*paths, "3_Dense/model.safetensors"]) == {
        "pytorch_model.bin.index.json": "model.safetensors",
        "2_Dense/pytorch_model.bin": "2_Dense/model.safetensors",
    }


def test_a_missing_shard_is_noticed() -> None:
    first, second = "a/model-00001-of-00002.safetensors", "a/model-00002-of-00002.safetensors"
    assert lacks_shards([first])
    assert not lacks_shards([first, second, "model.safetensors"])
