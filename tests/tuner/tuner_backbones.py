"""Tiny random backbones of every shape that the tuner knows, and where their projections are, written down by hand."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    EsmConfig,
    EsmForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoXConfig,
    GPTNeoXForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Phi3Config,
    Phi3ForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

VOCABULARY = 48
COMMON = {"vocab_size": VOCABULARY, "initializer_range": 0.3, "num_labels": 2, "pad_token_id": 0}
BLOCK = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 32}
ENCODER = COMMON | BLOCK | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ROBERTA = ENCODER | {"num_hidden_layers": 3, "max_position_embeddings": 24}
LLAMA = COMMON | {  # 2 query heads a key and value head, and heads * head_dim is not hidden_size
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
GPT2 = COMMON | {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 24}
GPT2 |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
NEOX = COMMON | BLOCK | {"num_hidden_layers": 2, "max_position_embeddings": 24}
NEOX |= {"attention_dropout": 0.0, "hidden_dropout": 0.0, "classifier_dropout": 0.0}
PHI3 = LLAMA | {"hidden_size": 24, "head_dim": 8, "eos_token_id": 1, "bos_token_id": 1}
T5 = {  # 4 heads of 5 are not 24; 2 + 1 + 1 attention blocks
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 5,
    "num_heads": 4,
    "d_ff": 32,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "dropout_rate": 0.0,
    "num_labels": 2,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
VIT = {key: ENCODER[key] for key in ENCODER if key not in ("vocab_size", "pad_token_id")}
VIT |= {"num_hidden_layers": 2, "image_size": 8, "patch_size": 4}

CLASSES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "roberta": (RobertaConfig, RobertaForSequenceClassification, ROBERTA),
    "llama": (LlamaConfig, LlamaForSequenceClassification, LLAMA),
    "llama_lm": (LlamaConfig, LlamaForCausalLM, LLAMA),
    "gpt2": (GPT2Config, GPT2ForSequenceClassification, GPT2),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForSequenceClassification, NEOX),
    "phi3": (Phi3Config, Phi3ForSequenceClassification, PHI3),
    "t5": (T5Config, T5ForSequenceClassification, T5),
    "t5_gated": (T5Config, T5ForSequenceClassification, T5 | {"feed_forward_proj": "gated-gelu"}),
    "t5_lm": (T5Config, T5ForConditionalGeneration, T5),
    "esm": (
        EsmConfig,
        EsmForSequenceClassification,
        ROBERTA | {"position_embedding_type": "rotary", "mask_token_id": 2},
    ),
    "vit": (ViTConfig, ViTForImageClassification, VIT),
}


@dataclass(frozen=True)
class Place:
    """One module of a backbone: its path with {} for the layer number, and the roles that it holds."""

    path: str
    roles: tuple[str, ...]
    stack: int = 0  # layers of the tensor before this stack's first


def _encoder_places(prefix: str) -> list[Place]:
    attention = [("self.query", "q"), ("self.key", "k"), ("self.value", "v"), ("output.dense", "o")]
    feedforward = [Place(f"{prefix}.{{}}.intermediate.dense", ("up",)), Place(f"{prefix}.{{}}.output.dense", ("down",))]
    return [Place(f"{prefix}.{{}}.attention.{name}", (role,)) for name, role in attention] + feedforward


def _t5_places(feedforward: dict[str, str]) -> list[Place]:
    stacks = ["encoder.block.{}.layer.0.SelfAttention", "decoder.block.{}.layer.0.SelfAttention"]
    stacks += ["decoder.block.{}.layer.1.EncDecAttention"]
    dense = ["encoder.block.{}.layer.1.DenseReluDense", "decoder.block.{}.layer.2.DenseReluDense"]
    attention = [
        Place(f"transformer.{path}.{role}", (role,), n)
        for path, n in zip(stacks, (0, 2, 3), strict=True)
        for role in "qkvo"
    ]
    return attention + [
        Place(f"transformer.{path}.{name}", (role,), stack)
        for path, stack in zip(dense, (0, 2), strict=True)
        for name, role in feedforward.items()
    ]


def _places(prefix: str, **names: str) -> list[Place]:
    return [Place(f"{prefix}.{{}}.{name}", tuple(roles.split("_"))) for roles, name in names.items()]


PLACES: dict[str, list[Place]] = {
    "roberta": _encoder_places("roberta.encoder.layer"),
    "esm": _encoder_places("esm.encoder.layer"),
    "llama": _places(
        "model.layers",
        q="self_attn.q_proj",
        k="self_attn.k_proj",
        v="self_attn.v_proj",
        o="self_attn.o_proj",
        gate="mlp.gate_proj",
        up="mlp.up_proj",
        down="mlp.down_proj",
    ),
    "gpt2": _places("transformer.h", q_k_v="attn.c_attn", o="attn.c_proj", up="mlp.c_fc", down="mlp.c_proj"),
    "gpt_neox": _places(
        "gpt_neox.layers",
        q_k_v="attention.query_key_value",
        o="attention.dense",
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
    ),
    "phi3": _places(
        "model.layers",
        q_k_v="self_attn.qkv_proj",
        o="self_attn.o_proj",
        gate_up="mlp.gate_up_proj",
        down="mlp.down_proj",
    ),
    "t5": _t5_places({"wi": "up", "wo": "down"}),
    "t5_gated": _t5_places({"wi_0": "gate", "wi_1": "up", "wo": "down"}),
    "vit": _places(
        "vit.layers",
        q="attention.q_proj",
        k="attention.k_proj",
        v="attention.v_proj",
        o="attention.o_proj",
        up="mlp.fc1",
        down="mlp.fc2",
    ),
}
ATTENTION, EVERYTHING = "qkvo", ("q", "k", "v", "o", "gate", "up", "down")


def build_backbone(name: str, **changes: object) -> PreTrainedModel:
    """Return a model in evaluation mode; the same name always has the same weights, large enough to show updates."""
    config_class, model_class, sizes = CLASSES[name]
    torch.manual_seed(0)
    model = model_class(config_class(**(sizes | changes))).eval()
    if name.startswith("t5"):  # its initializer_factor scales each weight differently
        for weight in model.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.3)
    return model


def batch(name: str) -> dict[str, Tensor]:
    """Return three rows of model inputs."""
    generator = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
    rows = torch.randint(3, VOCABULARY, (3, 7), generator=generator)
    if name in ("t5", "t5_gated"):  # T5 classifies at the end token
        rows[:, -1] = 1
    return {"input_ids": rows} | ({"decoder_input_ids": rows[:, :4]} if name == "t5_lm" else {})


def target_pattern(name: str, roles: str | tuple[str, ...]) -> str:
    """Return a regular expression for the modules that hold one of the roles."""
    paths = [place.path for place in PLACES[name] if set(place.roles) & set(roles)]
    return "|".join(path.replace(".", r"\.").replace("{}", r"\d+") for path in paths)
