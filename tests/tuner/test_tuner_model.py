"""LoRTA on a model: targets, rows and refusals. What any tuner must do is in behaviours/."""

import copy
import re

import pytest
import torch
from peft import get_peft_model, inject_adapter_in_model
from torch import nn

from lorta.tuner import LortaConfig, LortaLinear


def attach(model, **settings):
    return get_peft_model(model, LortaConfig(**({"r": 3, "alpha": 2.0} | settings)))


def layers_of(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, LortaLinear)}


def rows(model, adapter="default"):
    names = ("hidden", "head_dim", "heads", "layers", "matrices")
    return {name: len(getattr(model.base_model, f"lorta_{name}")[adapter]) for name in names}


@pytest.mark.parametrize("targets", [None, ["query", "value"], r".*\.attention\.self\.(query|value)"])
@pytest.mark.parametrize("layers", [[2, 0], [1], 1])
def test_only_the_chosen_layers_and_projections_get_rows(backbone, targets, layers):
    model = attach(backbone("roberta"), target_modules=targets, layers_to_transform=layers)
    chosen = {layers} if isinstance(layers, int) else set(layers)
    assert {int(re.search(r"\.(\d+)\.", path).group(1)) for path in layers_of(model)} == chosen
    projections = 2 if targets else 4
    assert rows(model) == {
        "hidden": 24,
        "head_dim": 6,
        "heads": 4,
        "layers": len(chosen),
        "matrices": projections,
    }
    assert len(layers_of(model)) == len(chosen) * projections


def test_rows_of_the_matrix_mode_follow_q_k_v_o_and_not_the_order_of_targets(backbone):
    model = attach(backbone("roberta"), target_modules=["value", "attention.output.dense", "query"])
    places = {
        path.split("attention.")[1]: layer.position["default"].matrix_rows[0]
        for path, layer in layers_of(model).items()
    }
    assert places == {"self.query": 0, "self.value": 1, "output.dense": 2}


def test_a_second_adapter_has_rows_for_its_own_targets(backbone):
    model = attach(backbone("roberta"))
    model.add_adapter("narrow", LortaConfig(r=2, target_modules=["query", "value"], layers_to_transform=[1]))
    assert rows(model, "narrow") == {"hidden": 24, "head_dim": 6, "heads": 4, "layers": 1, "matrices": 2}
    assert rows(model) == {"hidden": 24, "head_dim": 6, "heads": 4, "layers": 3, "matrices": 4}
    adapted = [path for path, layer in layers_of(model).items() if "narrow" in layer.position]
    assert [path.split("layer.")[1] for path in adapted] == ["1.attention.self.query", "1.attention.self.value"]


def test_the_feedforward_block_has_heads_of_its_own(backbone):
    model = attach(backbone("roberta"), target_modules=["query", "intermediate.dense"])
    containers = {name: box for name, box in model.base_model.named_children() if name.startswith("lorta_")}
    factors = {name: tuple(box["default"].shape) for name, box in containers.items() if "default" in box}
    assert factors == {
        "lorta_hidden": (24, 3),
        "lorta_layers": (3, 3),
        "lorta_matrices": (2, 3),
        "lorta_head_dim": (6, 3),
        "lorta_heads": (4, 3),
        "lorta_feedforward_head_dim": (8, 3),  # 32 inner features
        "lorta_feedforward_heads": (4, 3),
    }


def test_a_feedforward_width_that_heads_do_not_divide_gets_fewer_blocks(backbone):
    model = attach(backbone("roberta", intermediate_size=33), target_modules=["intermediate.dense"])
    assert rows_of_feedforward(model) == (3, 11)
    model = attach(backbone("roberta", intermediate_size=37), target_modules=["intermediate.dense"])
    assert rows_of_feedforward(model) == (1, 37)


def rows_of_feedforward(model):
    containers = model.base_model.lorta_feedforward_heads, model.base_model.lorta_feedforward_head_dim
    return tuple(len(container["default"]) for container in containers)


def test_all_layers_read_the_same_factors(backbone):
    model = attach(backbone("roberta"))
    copied = copy.deepcopy(model)
    for one in (model, copied):
        assert all(layer.lorta_hidden is one.base_model.lorta_hidden for layer in layers_of(one).values())
    assert model.base_model.lorta_hidden is not copied.base_model.lorta_hidden
    assert sum(".lorta_" in name for name in model.state_dict()) == 5


def test_a_deleted_adapter_is_forgotten_by_every_layer(backbone):
    model = attach(backbone("roberta"))
    model.add_adapter("second", LortaConfig(r=2))
    model.delete_adapter("second")
    for layer in layers_of(model).values():
        kept = (
            layer.position,
            layer.scaling,
            layer.order,
            layer.group,
            layer.adapter_dropout,
            *layer.factors("second"),
        )
        assert not any("second" in mapping for mapping in kept)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("roberta", {"target_modules": ["query", "classifier.dense"]}, "adapts the projections q, k, v, o"),
        ("roberta", {"target_modules": ["word_embeddings"]}, "adapts the projections q, k, v, o"),
        (
            "roberta",
            {"target_modules": ["0.attention.self.query", "1.attention.self.value"]},
            "same projections in each",
        ),
        ("roberta", {"exclude_modules": r".*layer\.1\.attention\.self\.key"}, "select 11 of them"),
        ("roberta", {"target_modules": ["no_such_module"]}, "not found in the base model"),
        ("roberta", {"layers_to_transform": [7]}, "not found in the base model"),
        ("llama", {"head_side": "input"}, r"q_proj has 32 inputs and 24 outputs.*needs 24 and 32.*head_side='natural'"),
        ("llama", {"head_side": "output"}, r"o_proj has 24 inputs and 32 outputs.*needs 32 and 24"),
        ("t5", {"head_side": "input"}, "head_side='natural'"),
        ("gpt2", {"head_side": "input"}, r"c_attn holds several projections in one module.*'natural' or 'output'"),
        ("gpt_neox", {"head_side": "input"}, "query_key_value holds several projections in one module"),
    ],
)
def test_targets_that_do_not_fit_are_refused_before_anything_is_replaced(backbone, name, settings, sentence):
    model = backbone(name)
    with pytest.raises(ValueError, match=sentence):
        attach(model, **settings)
    assert not layers_of(model)


def test_a_refused_second_adapter_leaves_the_first_as_it_was(backbone, tokens, randomise):
    model = randomise(attach(backbone("roberta")))
    expected = model(tokens).logits
    with pytest.raises(ValueError, match="adapts the projections"):
        model.add_adapter("second", LortaConfig(target_modules=["classifier.dense"]))
    assert torch.equal(model(tokens).logits, expected)


def test_a_model_type_without_a_row_is_named(backbone, monkeypatch):
    model = backbone("roberta")
    monkeypatch.setattr(type(model.config), "model_type", "unheard-of")
    with pytest.raises(ValueError, match=r"no row for model_type 'unheard-of' in lorta/geometry\.py"):
        attach(model)


def test_a_projection_that_is_no_linear_is_refused(backbone):
    model = backbone("roberta")
    model.roberta.encoder.layer[1].attention.self.query = nn.Identity()
    named = r"layer\.1\.attention\.self\.query: expected a torch.nn.Linear.* got a Identity"
    with pytest.raises(TypeError, match=named):
        attach(model)


def test_a_projection_of_another_shape_than_the_configuration_says_is_refused(backbone):
    model = backbone("roberta")
    model.roberta.encoder.layer[1].attention.self.query = nn.Linear(24, 20)
    with pytest.raises(ValueError, match=r"self\.query has 24 inputs and 20 outputs.*needs 24 and 24"):
        attach(model)


def test_injecting_without_the_model_that_holds_the_factors_is_refused(backbone):
    for inject in (inject_adapter_in_model, lambda config, model: model.add_adapter(config)):  # PEFT's, transformers'
        with pytest.raises(ValueError, match=r"shared state stored on the tuner. Please use `get_peft_model`"):
            inject(LortaConfig(r=2), backbone("roberta"))
