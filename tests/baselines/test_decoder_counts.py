"""Counts on language models of real size, built on the meta device: closed form, built model and published figure."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.places import CONF
from lorta.geometry import Geometry
from lorta.models.backbone import Backbone
from lorta.training.metering import count_parameters

# hidden, layers, heads, key-value heads, intermediate, vocabulary of the public config.json files
SIZES = {
    "llama2_7b": ("llama", 4096, 32, 32, 32, 11008, 32000),
    "llama2_13b": ("llama", 5120, 40, 40, 40, 13824, 32000),
    "llama3_8b": ("llama", 4096, 32, 32, 8, 14336, 128256),
    "mistral_7b": ("mistral", 4096, 32, 32, 8, 14336, 32000),
    "qwen3_8b": ("qwen3", 4096, 36, 32, 8, 12288, 151936),
}


def backbone(name: str, layers: int | None = None) -> Backbone:
    kind, hidden, depth, heads, key_value, intermediate, vocabulary = SIZES[name]
    config = AutoConfig.for_model(
        kind,
        hidden_size=hidden,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        num_key_value_heads=key_value,
        intermediate_size=intermediate,
        vocab_size=vocabulary,
        head_dim=hidden // heads,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return Backbone(model, None, Geometry.from_config(config.to_dict()))


def adapter(name: str, rank: int, *roles: str):
    problems = Problems()
    values = {"adapter": [name], "rank": [rank]} | ({"adapter.projections": [list(roles)]} if roles else {})
    (cell,) = compose_cells(values, CONF, problems)
    assert not problems
    return build(cell.config["adapter"])


@pytest.mark.parametrize(
    ("name", "rank", "roles", "model", "expected"),
    [
        ("lorta", 1, "", "llama2_7b", 4_292),  # 4096 + 128 + 32 + 32 + 4
        ("lorta", 48, "", "llama2_7b", 206_016),
        ("lorta", 1, "", "llama2_13b", 5_332),
        ("lora", 1, "qkvo", "llama2_7b", 1_048_576),
        ("lora", 1, "qv", "llama2_7b", 524_288),
        ("vera", 256, "qv", "llama2_7b", 278_528),
        ("vera", 1024, "qv", "llama2_7b", 327_680),
        ("loretta_rep", 5, "qv", "llama2_7b", 102_400),
        ("loretta_rep", 8, "qv", "llama2_7b", 249_856),
        ("lora", 1, "qv", "llama3_8b", 32 * (2 * 4096 + 4096 + 1024)),  # four query heads share a key and a value
    ],
)
def test_a_language_model_of_real_size_has_the_published_count(name, rank, roles, model, expected):
    method, base = adapter(name, rank, *roles), backbone(model, 4 if name == "vera" else None)
    assert method.parameters(backbone(model).geometry) == expected
    built = count_parameters(method.attach(base, "CAUSAL_LM"), base.geometry.architecture)
    assert built.adapter == method.parameters(base.geometry)
    assert built.head == 0


@pytest.mark.parametrize("model", SIZES)
def test_lorta_counts_the_same_on_every_decoder_of_the_configuration(model):
    method, base = adapter("lorta", 3), backbone(model, 2)
    built = count_parameters(method.attach(base, "CAUSAL_LM"), base.geometry.architecture)
    assert built.adapter == built.trainable == method.parameters(base.geometry)


def test_lorettas_trained_norms_are_counted_apart():
    base = backbone("llama2_7b")
    built = count_parameters(adapter("loretta_rep", 8).attach(base, "CAUSAL_LM"), base.geometry.architecture)
    assert (built.adapter, built.other_trainable) == (249_856, 266_240)  # together the paper's 0.51M
