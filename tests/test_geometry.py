"""Module names and shapes of every architecture row, against the real transformers classes."""

import re

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    EsmForProteinFolding,
)

from lorta.geometry import ARCHITECTURES, ROLES, Geometry

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40, "vocab_size": 20}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
T5 = {"d_model": 24, "d_kv": 5, "num_heads": 4, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3, "vocab_size": 20}
FOLDING = {
    "model_type": "esm",
    "is_folding_model": True,
    "pad_token_id": 1,
    "mask_token_id": 32,
    "vocab_size": 33,
    "position_embedding_type": "rotary",
    "esmfold_config": {
        "trunk": {"num_blocks": 2, "sequence_state_dim": 24, "sequence_head_width": 6, "max_recycles": 1}
    },
}
SETTINGS = {  # beside model_type, which is the row's name unless it is given
    "roberta": SIZES,
    "xlm-roberta": SIZES,
    "bert": SIZES,
    "deberta-v2": SIZES,
    "esm": SIZES | {"pad_token_id": 0, "mask_token_id": 1, "position_embedding_type": "rotary"},
    "esmfold": SIZES | FOLDING,
    "esmfold-trunk": SIZES | FOLDING | {"adapted_part": "trunk"},
    "vit": {key: SIZES[key] for key in SIZES if key != "vocab_size"} | {"image_size": 8, "patch_size": 4},
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED | {"head_dim": None},
    "qwen3": GROUPED,
    "phi3": GROUPED | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16, "vocab_size": 20},
    "gpt_neox": SIZES,
    "t5": T5 | {"feed_forward_proj": "relu"},
    "t5-gated": T5 | {"feed_forward_proj": "gated-gelu", "model_type": "t5"},
}
FUSED = {"phi3": [("q", "k", "v"), ("gate", "up")], "gpt2": [("q", "k", "v")], "gpt_neox": [("q", "k", "v")]} | {
    "esmfold-trunk": [("q", "k", "v")]
}

PARTS = {"esmfold": "esm.", "esmfold-trunk": "trunk.blocks."}  # of a model that is pre-trained whole, what is adapted


def config_of(name):
    settings = {"model_type": name} | SETTINGS[name]
    return AutoConfig.for_model(**{key: value for key, value in settings.items() if value is not None})


def geometry_of(name):
    return Geometry.from_config(config_of(name).to_dict())


def model_of(name):
    family = AutoModelForImageClassification if name == "vit" else AutoModelForSequenceClassification
    with torch.device("meta"):
        if name.startswith("esmfold"):
            return EsmForProteinFolding(config_of(name))
        return family.from_config(config_of(name))


def roles_of(geometry):
    return [role for role in ROLES if role in geometry.architecture.modules]


def found_in(name):
    """Return {(layer, roles): module} of the real model."""
    geometry = geometry_of(name)
    located = [(geometry.locate(path), module) for path, module in model_of(name).named_modules()]
    found = [(place, module) for place, module in located if place]
    assert len(dict(found)) == len(found), "two modules at one place"
    return dict(found)


def shape_of(module):
    transposed = type(module).__name__ == "Conv1D"
    return tuple(module.weight.shape if transposed else module.weight.shape[::-1])


def test_every_row_is_checked_here():
    assert set(SETTINGS) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", SETTINGS)
def test_roles_are_linear_layers_of_the_stated_shape(name):
    geometry = geometry_of(name)
    for (_, roles), module in found_in(name).items():
        inputs, outputs = shape_of(module)
        assert {geometry.shape(role)[0] for role in roles} == {inputs}
        assert sum(geometry.shape(role)[1] for role in roles) == outputs


@pytest.mark.parametrize("name", [name for name in SETTINGS if not name.startswith("t5")])
def test_each_role_is_in_each_layer_once(name):
    found = [(layer, role) for layer, roles in found_in(name) for role in roles]
    assert sorted(found) == sorted((layer, role) for layer in range(2) for role in roles_of(geometry_of(name)))


@pytest.mark.parametrize("name", ["t5", "t5-gated"])
def test_blocks_of_an_encoder_decoder_count_as_layers_one_stack_after_the_other(name):
    """Two encoder layers, the decoder's three with self-attention and three across; feed-forward in the first five."""
    geometry, found = geometry_of(name), found_in(name)
    assert geometry.layers == 2 + 3 + 3
    attention = {layer for layer, roles in found if roles == ("q",)}
    feedforward = {layer for layer, roles in found if roles == ("up",)}
    assert (attention, feedforward) == (set(range(8)), set(range(5)))
    assert geometry.locate("transformer.decoder.block.0.layer.0.SelfAttention.q") == (2, ("q",))
    assert geometry.locate("transformer.decoder.block.2.layer.1.EncDecAttention.v") == (7, ("v",))
    assert geometry.locate("transformer.decoder.block.2.layer.2.DenseReluDense.wo") == (4, ("down",))


@pytest.mark.parametrize("name", SETTINGS)
def test_only_cross_attention_reads_keys_from_elsewhere(name):
    geometry = geometry_of(name)
    expected = [5, 6, 7] if name.startswith("t5") else []
    assert [layer for layer in range(geometry.layers) if geometry.crosses(layer)] == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_module_shapes_are_those_of_the_real_modules(name):
    geometry = geometry_of(name)
    real = sorted(shape_of(module) for module in found_in(name).values())
    assert sorted(geometry.module_shapes(roles_of(geometry))) == real


@pytest.mark.parametrize("name", SETTINGS)
def test_module_shapes_of_attention_leave_the_rest_out(name):
    geometry = geometry_of(name)
    real = sorted(shape_of(module) for (_, roles), module in found_in(name).items() if set(roles) <= set("qkvo"))
    assert sorted(geometry.module_shapes("qkvo")) == real


@pytest.mark.parametrize("name", SETTINGS)
def test_target_expression_matches_the_modules_of_its_roles_and_no_others(name):
    geometry = geometry_of(name)
    for wanted in ("qkvo", ("up", "down"), roles_of(geometry)):
        if wanted == ("up", "down") and name == "phi3":
            wanted = ("gate", "up", "down")
        pattern = geometry.target_regex(wanted)
        for path, _ in model_of(name).named_modules():
            place = geometry.locate(path)
            assert (re.fullmatch(pattern, path) is not None) == (place is not None and set(place[1]) <= set(wanted))


@pytest.mark.parametrize("name", SETTINGS)
def test_roles_in_one_module_are_the_fused_ones(name):
    fused = {roles for _, roles in found_in(name) if len(roles) > 1}
    assert fused == set(FUSED.get(name, ()))


@pytest.mark.parametrize("name", FUSED)
def test_a_part_of_a_fused_module_is_refused(name):
    with pytest.raises(
        ValueError,
        match=rf"{geometry_of(name).model_type} has q, k, v in one module: take all of them or none, not q, v alone",
    ):
        geometry_of(name).roles(["q", "v"])


def test_a_part_of_a_fused_feedforward_module_is_refused():
    with pytest.raises(ValueError, match="phi3 has gate, up in one module"):
        geometry_of("phi3").roles(["up", "down"])


def test_roles_come_in_canonical_order():
    assert geometry_of("gpt2").roles(["down", "o", "v", "k", "q"]) == ("q", "k", "v", "o", "down")


@pytest.mark.parametrize("name", SETTINGS)
def test_numbers_are_those_of_the_configuration(name):
    geometry = geometry_of(name)
    heads = (4, 2 if name in ("llama", "mistral", "qwen2", "qwen3", "phi3") else 4)
    head_dim = 5 if name.startswith("t5") else 8 if name in ("llama", "mistral", "qwen3", "phi3") else 6
    assert (geometry.hidden, geometry.heads, geometry.kv_heads, geometry.head_dim) == (24, *heads, head_dim)
    assert geometry.intermediate == (96 if name in ("gpt2", "esmfold-trunk") else 40)


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in PARTS])
def test_the_head_is_what_the_backbone_lacks(name):
    model = model_of(name)
    names = [child for child, _ in model.named_children() if child not in (model.base_model_prefix, "dropout")]
    assert names == list(geometry_of(name).architecture.head)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_norms_are_all_modules_of_a_norm_class(name):
    pattern = geometry_of(name).architecture.norms
    modules = dict(model_of(name).named_modules())
    adapted = {path: module for path, module in modules.items() if path.startswith(PARTS.get(name, ""))}
    classes = {path for path, module in adapted.items() if "Norm" in type(module).__name__}
    assert classes == {path for path in modules if re.fullmatch(pattern, path)}


def test_an_unknown_architecture_gets_a_sentence_with_the_remedy():
    with pytest.raises(ValueError, match=r"no row for model_type 'strange'.*ARCHITECTURES"):
        Geometry.from_config({"model_type": "strange"})


def test_an_unknown_role_gets_a_sentence():
    with pytest.raises(ValueError, match="roberta has no projection gate"):
        geometry_of("roberta").roles(["q", "gate"])
