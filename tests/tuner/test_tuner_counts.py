import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from lorta.tuner import LortaConfig

REAL = {
    "roberta-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "roberta-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "llama2-7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008},
}


def factors_of(name, rank, **settings):
    roberta = name.startswith("roberta")
    config = (RobertaConfig if roberta else LlamaConfig)(**REAL[name], pad_token_id=1)
    with torch.device("meta"):
        base = (RobertaForSequenceClassification if roberta else LlamaForSequenceClassification)(config)
    model = get_peft_model(base, LortaConfig(r=rank, task_type="SEQ_CLS", **settings))
    return [p for key, p in model.named_parameters() if "lorta_" in key]


@pytest.mark.parametrize(
    ("name", "rank", "published"),
    [("roberta-base", 4, 3440), ("roberta-base", 16, 13760), ("roberta-large", 8, 9056), ("llama2-7b", 1, 4292)],
)
def test_adapter_has_the_published_number_of_parameters_at_real_size(name, rank, published):
    factors = factors_of(name, rank)
    assert all(factor.is_meta and factor.requires_grad for factor in factors)
    assert sum(factor.numel() for factor in factors) == published


@pytest.mark.parametrize(
    ("order", "published"),
    [("4_way_per_matrix", 17_152), ("4_way_per_layer", 136_320), ("3_way_joint", 8_320), ("3_way_per_matrix", 20_992)],
)
def test_an_ablation_has_the_number_of_parameters_of_the_released_code(order, published):
    """Of its variants at Llama-2-7b size, per unit of rank."""
    assert sum(factor.numel() for factor in factors_of("llama2-7b", 1, order=order)) == published


def test_query_and_value_alone_cost_two_rows_less():
    factors = factors_of("roberta-base", 4, target_modules=["query", "value"])
    assert sum(factor.numel() for factor in factors) == 3440 - 2 * 4
