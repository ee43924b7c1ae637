"""Models of a given shape with random weights and a tokenizer of one token a byte.

Larger than `tiny_models`, which has heads too narrow for GPU kernels: here the shape is the point.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.support import tiny_models


@dataclass(frozen=True)
class Shape:
    architecture: Literal["bert", "xlm-roberta"]
    pooling: Literal["cls", "mean", "lasttoken"]
    width: int
    layers: int
    heads: int
    positions: int
    """Rows of the position table."""
    limit: int
    dense: int | None = None
    normalized: bool = True


def shaped_model(shape: Shape, folder: Path) -> Path:
    """Write the model into `folder`, in float32. Imports torch."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(3)
    tokenizer = tiny_models._tokenizer(tiny_models.TinyModel(max_tokens=shape.limit))
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 4 * shape.width,
        "max_position_embeddings": shape.positions,
        "pad_token_id": 1,
    }
    if shape.architecture == "bert":
        backbone: Any = BertModel(BertConfig(**sizes), add_pooling_layer=False)
    else:
        config = XLMRobertaConfig(
            **sizes, type_vocab_size=1, layer_norm_eps=1e-5, bos_token_id=0, eos_token_id=2
        )
        backbone = XLMRobertaModel(config, add_pooling_layer=False)
    with tempfile.TemporaryDirectory() as parts:
        backbone.save_pretrained(parts)
        tokenizer.save_pretrained(parts)
        modules: list[Any] = [
            Transformer(parts, max_seq_length=shape.limit),
            Pooling(shape.width, pooling_mode=shape.pooling),
        ]
        if shape.dense is not None:
            modules.append(Dense(in_features=shape.width, out_features=shape.dense))
        if shape.normalized:
            modules.append(Normalize())
        SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder
