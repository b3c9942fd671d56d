"""Tiny random models of every kind of architecture that the tuner knows, as the Auto classes build them."""

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

ENCODER = {
    "vocab_size": 48,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DECODER = ENCODER | {"num_hidden_layers": 2, "max_position_embeddings": 32}
GPT2 = {"vocab_size": 48, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 24, "initializer_range": 0.1}
GPT2 |= {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}
T5 = {"vocab_size": 48, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}
T5 |= {"dropout_rate": 0.0, "decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu"}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # config class, PEFT task type, sizes
    "roberta": ("RobertaConfig", "SEQ_CLS", ENCODER | WITHOUT_DROPOUT),
    "esm": ("EsmConfig", "SEQ_CLS", ENCODER | WITHOUT_DROPOUT | {"mask_token_id": 47, "token_dropout": False}),
    "llama": ("LlamaConfig", "CAUSAL_LM", DECODER | {"num_key_value_heads": 2, "head_dim": 10}),
    "phi3": ("Phi3Config", "CAUSAL_LM", DECODER | {"num_key_value_heads": 2}),
    "gpt_neox": ("GPTNeoXConfig", "CAUSAL_LM", DECODER | {"rotary_pct": 1.0}),
    "gpt2": ("GPT2Config", "CAUSAL_LM", GPT2),
    "t5": ("T5Config", "SEQ_2_SEQ_LM", T5),
}
AUTO_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}


def build(name: str) -> PreTrainedModel:
    """The same name always has the same weights."""
    config_class, task_type, sizes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**sizes)
    return getattr(transformers, AUTO_CLASSES[task_type]).from_config(config).eval()


def inputs(name: str) -> dict[str, torch.Tensor]:
    tokens = torch.randint(3, 46, (3, 7), generator=torch.Generator().manual_seed(1))
    return {"input_ids": tokens} | ({"decoder_input_ids": tokens[:, :5].clone()} if name == "t5" else {})
