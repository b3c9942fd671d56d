"""Tiny random models under the names that PEFT's tests ask the hub for, in folders below the working directory."""

from pathlib import Path
from typing import Any

import torch
import transformers

ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
DECODER = ENCODER | {"vocab_size": 99, "max_position_embeddings": 64, "initializer_range": 0.2}
GROUPED = DECODER | {"num_key_value_heads": 2}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
DEBERTA = DECODER | {"pos_att_type": ["p2c", "c2p"], "relative_attention": True, "pooler_hidden_size": 32}

LLAMA = "trl-internal-testing/tiny-random-LlamaForCausalLM"
QWEN2 = "peft-internal-testing/tiny-dummy-qwen2"
GPT2_NAME = "peft-internal-testing/tiny-random-GPT2LMHeadModel"
T5_NAME = "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated"
BERT_CLS = "peft-internal-testing/tiny-random-BertForSequenceClassification"
ROBERTA_CLS = "peft-internal-testing/tiny-random-RobertaForSequenceClassification"
LLAMA_CLS = "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2"
BERT = "peft-internal-testing/tiny-random-BertModel"
ROBERTA = "peft-internal-testing/tiny-random-RobertaModel"
DEBERTA_NAME = "peft-internal-testing/tiny-random-DebertaV2Model"

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {  # class, class of its configuration, sizes
    LLAMA: ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    QWEN2: ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    GPT2_NAME: ("GPT2LMHeadModel", "GPT2Config", GPT2),
    T5_NAME: ("T5ForConditionalGeneration", "T5Config", T5 | {"decoder_start_token_id": 0}),
    BERT_CLS: ("BertForSequenceClassification", "BertConfig", DECODER),
    ROBERTA_CLS: ("RobertaForSequenceClassification", "RobertaConfig", DECODER),
    LLAMA_CLS: ("LlamaForSequenceClassification", "LlamaConfig", GROUPED),
    BERT: ("BertModel", "BertConfig", DECODER),
    ROBERTA: ("RobertaModel", "RobertaConfig", DECODER),
    DEBERTA_NAME: ("DebertaV2Model", "DebertaV2Config", DEBERTA),
}
LISTS = {  # the lists of names in PEFT's files that are replaced; a name that PEFT does not know is none of these
    "PEFT_DECODER_MODELS_TO_TEST": [LLAMA, QWEN2, GPT2_NAME],
    "SMALL_GRID_MODELS": [LLAMA],
    "PEFT_ENCODER_DECODER_MODELS_TO_TEST": [T5_NAME],
    "PEFT_SEQ_CLS_MODELS_TO_TEST": [BERT_CLS, ROBERTA_CLS, LLAMA_CLS],
    "PEFT_FEATURE_EXTRACTION_MODELS_TO_TEST": [BERT, ROBERTA, DEBERTA_NAME],
}


def build(name: str) -> Any:
    """Return one model, always with the same weights."""
    class_name, config_name, sizes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return getattr(transformers, class_name)(config).eval()


def write(folder: Path) -> None:
    """Save every model below a folder."""
    for name in MODELS:
        build(name).save_pretrained(folder / name)
