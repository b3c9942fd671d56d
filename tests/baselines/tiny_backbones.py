"""Tiny random backbones of the real classes, for fixtures and for tests that load in a new process."""

from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lorta.geometry import Geometry

COMMON = {"vocab_size": 48, "initializer_range": 0.3, "num_labels": 2, "pad_token_id": 0}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
DECODER = ENCODER | {"hidden_size": 32, "num_key_value_heads": 2, "head_dim": 6}
CLASSES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "roberta": (RobertaConfig, RobertaForSequenceClassification, ENCODER | WITHOUT_DROPOUT),
    "bert": (BertConfig, BertForSequenceClassification, ENCODER | WITHOUT_DROPOUT),
    "deberta": (
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
        ENCODER | WITHOUT_DROPOUT | {"pooler_hidden_size": 24},
    ),
    "llama": (LlamaConfig, LlamaForSequenceClassification, DECODER),  # 2 query heads a key and value head
}


def build_backbone(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """Return an object with `model` and `geometry`; the same name always has the same weights."""
    config_class, model_class, sizes = CLASSES[name]
    config = config_class(**(COMMON | sizes | changes))
    torch.manual_seed(0)
    with torch.device(device):
        model: PreTrainedModel = model_class(config).eval().to(dtype)
    return SimpleNamespace(model=model, tokenizer=None, geometry=Geometry.from_config(config.to_dict()))
