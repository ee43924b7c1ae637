"""Tiny sentence-transformers folders with random weights, made in a second and without a network.

They have the shapes that matter: BERT's positions (from 0) and XLM-RoBERTa's (from `padding_idx + 1`), CLS
and mean pooling, a Dense module, with and without Normalize at the end. Their vectors mean nothing but are
different for different texts.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

HIDDEN = 32
LAYERS = 2


@dataclass(frozen=True)
class TinyModel:
    """What to make; equal descriptions share one folder for the whole test session."""

    architecture: Literal["bert", "xlm-roberta"] = "xlm-roberta"
    pooling: Literal["cls", "mean"] = "cls"
    dense: int | None = None
    """Output width of a Dense module after the pooling."""
    normalize: bool = True
    max_tokens: int = 64
    pickled: bool = False
    """Weights as pytorch_model.bin instead of model.safetensors."""


XLM_R = TinyModel()
BERT = TinyModel("bert", "mean")
BERT_DENSE = TinyModel("bert", "mean", dense=24, normalize=False)


@cache
def tiny_model(model: TinyModel = XLM_R) -> Path:
    """The folder of that model; removed when the process ends. Imports torch."""
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="embedctl-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write(model, folder)
    return folder


def _write(model: TinyModel, folder: Path) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    state = torch.random.get_rng_state()
    torch.manual_seed(7)
    try:
        with tempfile.TemporaryDirectory() as parts:
            tokenizer = _tokenizer(model)
            tokenizer.save_pretrained(parts)
            _backbone(model, len(tokenizer)).save_pretrained(parts)
            modules: list[Any] = [
                Transformer(parts, max_seq_length=model.max_tokens),
                Pooling(HIDDEN, pooling_mode=model.pooling),
            ]
            if model.dense is not None:
                modules.append(Dense(in_features=HIDDEN, out_features=model.dense))
            if model.normalize:
                modules.append(Normalize())
            SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
            if model.pickled:
                weights = modules[0].model.state_dict()
                torch.save(weights, folder / "pytorch_model.bin")
                (folder / "model.safetensors").unlink()
    finally:
        torch.random.set_rng_state(state)


def _backbone(model: TinyModel, vocabulary: int) -> Any:
    from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "initializer_range": 0.2,  # wide enough that different texts get clearly different vectors
    }
    if model.architecture == "bert":
        positions = max(model.max_tokens, 64)
        return BertModel(
            BertConfig(**shape, max_position_embeddings=positions, pad_token_id=1), add_pooling_layer=False
        )
    config = XLMRobertaConfig(
        **shape,
        max_position_embeddings=model.max_tokens + 2,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return XLMRobertaModel(config, add_pooling_layer=False)


def _tokenizer(model: TinyModel) -> Any:
    """One token per UTF-8 byte, so that every text has known tokens: `<s>` bytes `</s>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=model.max_tokens,
    )
