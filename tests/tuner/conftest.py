"""Tiny random backbones whose weights are large enough for an update to show in the logits."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

COMMON = {"vocab_size": 48, "initializer_range": 0.3, "num_labels": 2, "pad_token_id": 0}
ROBERTA = COMMON | {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
LLAMA = COMMON | {  # 2 query heads a key and value head, and heads * head_dim is not hidden_size
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}


def _build(name: str, **changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    if name == "roberta":
        return RobertaForSequenceClassification(RobertaConfig(**(ROBERTA | changes))).eval()
    config = LlamaConfig(**(LLAMA | changes))
    return (LlamaForCausalLM if name == "llama_lm" else LlamaForSequenceClassification)(config).eval()


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small lose time, a lot on a busy machine, when their products are split over threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def backbone() -> Callable[..., PreTrainedModel]:
    """Return build(name, **config changes); the same name always has the same weights."""
    return _build


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 48, (3, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Return randomise(model, adapter): fill an adapter's factors, so that its update is no longer zero."""

    def fill(model: nn.Module, adapter: str = "default", seed: int = 2) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if ".lorta_" in name and name.endswith(f".{adapter}"):
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        return model

    return fill
