"""CaRA's two tensors against float64 sums, its biases and its dropout."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_oracles import ORDER, draw, geometry, slots, update
from torch.nn import functional
from torch.testing import assert_close
from transformers import LlamaForSequenceClassification, MistralConfig, MistralForCausalLM

from baselines.tensor.cara import CaraConfig, CaraModel
from lorta.geometry import Geometry

FULL = ("q", "k", "v", "o", "up", "down")
ROLES = st.sets(st.sampled_from(ORDER), min_size=1).map(lambda roles: tuple(sorted(roles)))


@given(st.integers(1, 5), st.integers(1, 3), ROLES, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_update_is_made_of_slices_of_the_two_tensors(rank, blocks, roles, seed):
    roles = tuple({*roles, "o"})
    config = CaraConfig(r=rank, scale=2.0)
    factors = draw(CaraModel, config, geometry(blocks=blocks), roles, seed)
    if "slots" in factors:
        names = ("slots", "weights", "inputs", "heads", "head_dim")
        attention = iter(torch.einsum("kr,r,er,hr,cr->khce", *(factors[name] for name in names)).flatten(1, 2))
    names = ("block_slots", "block_weights", "block_wide", "block_thin")
    others = iter(torch.einsum("kr,r,er,cr->kec", *(factors[name] for name in names)))
    for layer, role in slots(2, roles):
        if role in "qkv":
            expected = next(attention)
        else:
            own = [next(others) for _ in range(1 if role == "o" else blocks)]
            expected = torch.cat(own).T if role == "down" else torch.cat(own)
        torch.testing.assert_close(update(CaraModel, config, factors, layer, role), 2 * expected)
    assert next(others, None) is None


def trained(adapter, backbone, randomise, family, **settings_):
    changes = {"intermediate_size": 48} if family == "roberta" else {"intermediate_size": 64, "head_dim": 8}
    model = adapter("cara", 3, **settings_).attach(backbone(family, **changes), "SEQ_CLS")
    randomise(model)
    return model.eval()


def up_of(model, family):
    layers = model.base_model.model
    return (
        layers.roberta.encoder.layer[1].intermediate.dense
        if family == "roberta"
        else layers.model.layers[1].mlp.up_proj
    )


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_a_bias_is_scaled_merged_and_taken_out_again(adapter, backbone, randomise, tokens, family):
    model = trained(adapter, backbone, randomise, family, scale=0.5)
    layer, before = up_of(model, family), up_of(model, family).base_layer.bias
    before = None if before is None else before.clone()
    x = torch.randn(3, layer.in_features)
    bias = 0.5 * model.base_model.cara_bias_up["default"]
    expected = layer.base_layer(x) + x @ layer.get_delta_weight("default").T + bias
    torch.testing.assert_close(layer(x), expected)
    logits = model(tokens).logits
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(tokens).logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.base_layer.bias, bias if before is None else before + bias)
    model.unmerge_adapter()
    assert (layer.base_layer.bias is None) == (before is None)
    torch.testing.assert_close(model.merge_and_unload()(tokens).logits, logits, rtol=1e-4, atol=1e-4)


def test_an_update_with_a_bias_is_no_lora(adapter, backbone, randomise):
    model = trained(adapter, backbone, randomise, "roberta")
    layer = model.base_model.model.roberta.encoder.layer[0]
    assert layer.attention.self.query.supports_lora_conversion()
    assert not layer.output.dense.supports_lora_conversion()


def test_dropout_falls_on_the_entries_of_the_update(adapter, backbone, randomise):
    model = trained(adapter, backbone, randomise, "roberta", dropout=0.5)
    layer = up_of(model, "roberta").train()
    x = torch.randn(3, 24)
    torch.manual_seed(3)
    found = layer.update(x, "default")
    torch.manual_seed(3)
    dense = functional.dropout(layer.get_delta_weight("default"), 0.5)
    torch.testing.assert_close(found, x @ dense.T + layer.bias("default"))
    layer.eval()
    assert torch.equal(layer.update(x, "default"), layer.update(x, "default"))


def test_only_the_factors_that_start_at_zero_have_a_gradient_at_first(adapter, backbone, tokens):
    model = adapter("cara", 3).attach(backbone("roberta", intermediate_size=48), "SEQ_CLS")
    model(tokens, labels=torch.tensor([0, 1, 0])).loss.backward()
    moved = {name.split(".")[1] for name, weight in model.named_parameters() if "cara_" in name and weight.grad.any()}
    assert moved == {"cara_inputs", "cara_block_wide", "cara_bias_o", "cara_bias_up", "cara_bias_down"}


def test_weights_of_the_components_start_at_their_mean():
    config = CaraConfig(r=4, weights_mean=1.5)
    draw(CaraModel, config, geometry(), FULL, 0)
    assert CaraModel.initial(config)["weights"].tolist() == [1.5] * 4
    config.weights_std = 0.1
    assert 0 < CaraModel.initial(config)["block_weights"].std() < 1


@pytest.mark.parametrize("roles", [("q", "k", "v", "o"), ("up", "down"), ("q", "o", "up", "down"), ("q", "v")])
def test_a_merged_llama_is_saved_and_loaded_with_the_biases_it_gained(adapter, backbone, tokens, tmp_path, roles):
    method = dataclasses.replace(adapter("cara"), projections=roles)
    model = method.attach(backbone("llama", intermediate_size=64, head_dim=8), "SEQ_CLS")
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    merged = model.eval().merge_and_unload()
    expected = merged(tokens).logits
    merged.save_pretrained(tmp_path)
    again, report = LlamaForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert_close(again.eval()(tokens).logits, expected)


def test_a_model_that_cannot_be_saved_with_its_biases_is_not_merged(adapter):
    config = MistralConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    plain = MistralForCausalLM(config)
    backbone = SimpleNamespace(model=plain, tokenizer=None, geometry=Geometry.from_config(config.to_dict()))
    model = dataclasses.replace(adapter("cara"), projections=("q", "o")).attach(backbone, "CAUSAL_LM")
    with pytest.raises(ValueError, match=r"no setting of a MistralForCausalLM gives it one.*keep the adapter"):
        model.merge_and_unload()
    model.merge_adapter()  # in memory all is well
    model.unmerge_adapter()
    narrow = dataclasses.replace(adapter("cara"), projections=("q", "v"))
    backbone = SimpleNamespace(model=MistralForCausalLM(config), tokenizer=None, geometry=backbone.geometry)
    assert isinstance(narrow.attach(backbone, "CAUSAL_LM").merge_and_unload(), MistralForCausalLM)
