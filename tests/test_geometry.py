"""Module names and shapes of every architecture row, against the real transformers classes."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from lorta.geometry import ARCHITECTURES, ROLES, Geometry

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 20}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
MODELS = {
    "roberta": (RobertaConfig(**SIZES), RobertaForSequenceClassification),
    "xlm-roberta": (XLMRobertaConfig(**SIZES), XLMRobertaForSequenceClassification),
    "bert": (BertConfig(**SIZES), BertForSequenceClassification),
    "deberta-v2": (DebertaV2Config(**SIZES), DebertaV2ForSequenceClassification),
    "llama": (LlamaConfig(**GROUPED), LlamaForSequenceClassification),
    "mistral": (MistralConfig(**GROUPED), MistralForSequenceClassification),
}


def test_every_row_is_checked_here():
    assert set(MODELS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", MODELS)
def test_roles_are_linear_layers_of_the_stated_shape(name):
    config, model_class = MODELS[name]
    with torch.device("meta"):
        model = model_class(config)
    geometry = Geometry.from_config(config.to_dict())
    found = {}
    for path, module in model.named_modules():
        if location := geometry.locate(path):
            found[location] = module
    roles = [role for role in ROLES if role in geometry.architecture.modules]
    assert set(found) == {(layer, role) for layer in range(2) for role in roles}
    for (_, role), module in found.items():
        assert (module.in_features, module.out_features) == geometry.shape(role)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_is_what_the_backbone_lacks(name):
    config, model_class = MODELS[name]
    with torch.device("meta"):
        model = model_class(config)
    heads = Geometry.from_config(config.to_dict()).architecture.head
    names = [child for child, _ in model.named_children()]
    backbone = model.base_model_prefix
    assert [child for child in names if child not in (backbone, "dropout")] == list(heads)


def test_an_unknown_architecture_gets_a_sentence_with_the_remedy():
    with pytest.raises(ValueError, match=r"no row for model_type 'strange'.*ARCHITECTURES"):
        Geometry.from_config({"model_type": "strange"})


def test_an_unknown_role_gets_a_sentence():
    geometry = Geometry.from_config(MODELS["roberta"][0].to_dict())
    with pytest.raises(ValueError, match="roberta has no projection gate"):
        geometry.roles(["q", "gate"])
