"""Tiny backbones of every architecture that methods are attached to, random weights, no dropout."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    EsmConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen3Config,
    RobertaConfig,
    T5Config,
)

from lorta.api.adapter import Adapter
from lorta.api.peft_adapter import PeftAdapter
from lorta.geometry import ROLES, Geometry
from lorta.models.backbone import Backbone
from tests.contract.backbones import batch

COMMON = {"vocab_size": 60, "num_labels": 2, "pad_token_id": 1}
SIZES = COMMON | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
ENCODER = SIZES | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DECODER = SIZES | {"num_key_value_heads": 2}
DEBERTA = {  # relative positions, as the released models have them
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 8,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "pooler_hidden_size": 32,
    "pooler_dropout": 0.0,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "eos_token_id": 2, "dropout_rate": 0.0}
FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "roberta": (RobertaConfig, ENCODER),
    "bert": (BertConfig, ENCODER),
    "deberta-v2": (DebertaV2Config, ENCODER | DEBERTA),
    "esm": (EsmConfig, ENCODER | {"mask_token_id": 2, "position_embedding_type": "rotary"}),
    "gpt2": (GPT2Config, COMMON | GPT2 | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)),
    "gpt_neox": (GPTNeoXConfig, SIZES | {"hidden_dropout": 0.0, "attention_dropout": 0.0}),
    "phi3": (Phi3Config, DECODER | {"resid_pdrop": 0.0, "embd_pdrop": 0.0}),
    "qwen3": (Qwen3Config, DECODER | {"head_dim": 16}),  # heads x head_dim is twice hidden, as in Qwen3-0.6B
    "llama": (LlamaConfig, DECODER),
    "t5": (T5Config, COMMON | T5 | {"decoder_start_token_id": 1, "feed_forward_proj": "gated-gelu"}),
}


def config_of(family: str) -> PreTrainedConfig:
    """The configuration of a family's tiny model."""
    kind, settings = FAMILIES[family]
    return kind(**settings)


@cache
def geometry_of(family: str) -> Geometry:
    """What a plan knows of the family's tiny model."""
    return Geometry.from_config(config_of(family).to_dict())


def build_family(family: str, task_type: str = "SEQ_CLS") -> Backbone:
    """The family's model for a task, the same at each call."""
    rows = {"input_ids": batch()["input_ids"].tolist()}
    words: Any = SimpleNamespace(mask_token_id=2, all_special_ids=[0, 1, 2])
    return Backbone(deepcopy(_model(family, task_type)), words, geometry_of(family), rows=rows)


@cache
def _model(family: str, task_type: str) -> Any:
    torch.manual_seed(0)
    kind: Any = AutoModelForCausalLM if task_type == "CAUSAL_LM" else AutoModelForSequenceClassification
    model = kind.from_config(config_of(family))
    with torch.no_grad():  # transformers' 0.02 is so small that differences drown in rounding
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.1)
    return model.eval()


def with_whole_modules(method: Adapter, geometry: Geometry) -> Adapter:
    """The method on its own projections and those that share a module with one, of those that the model has."""
    if not isinstance(method, PeftAdapter) or not method.projections:
        return method
    wanted, known = set(method.projections), geometry.architecture
    roles = [role for role in ROLES if role in known.modules and wanted & set(known.sharing(role))]
    return replace(method, projections=roles)


@cache
def tokens() -> torch.Tensor:
    """Four rows of nine tokens that end with the end-of-text token, which T5's classifier asks for."""
    ids = batch()["input_ids"].clone()
    ids[:, -1] = 2
    return ids


@torch.no_grad()
def family_logits(model: torch.nn.Module) -> torch.Tensor:
    """The logits of `tokens`, in float32; those of virtual tokens left out."""
    logits = model.eval()(input_ids=tokens(), attention_mask=torch.ones_like(tokens())).logits.float()
    return logits[:, -tokens().shape[1] :] if logits.dim() == 3 else logits
