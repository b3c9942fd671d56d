"""The wide matrices that all layers make together: the numbers of each layer by itself, in one forward pass only."""

import threading

import pytest
import torch
from torch.testing import assert_close

from lorta.geometry import Geometry
from lorta.tuner import wide_tables

SETTINGS = {  # with how many tables
    "as it is": ({}, 2),  # of q, k and v; of o
    "some layers": ({"layers_to_transform": [0, 2]}, 2),
    "input heads": ({"head_side": "input"}, 4),
    "4_way_per_matrix": ({"order": "4_way_per_matrix"}, 0),
    "3_way_joint": ({"order": "3_way_joint"}, 0),
}
FUSED = {"gpt2": 0, "gpt_neox": 1, "phi3": 1}  # of o alone; GPT-2 has no nn.Linear
NAMES = ["roberta", "llama", "llama_lm", "esm", "vit", "t5", "t5_lm", *FUSED]


@pytest.fixture
def made(monkeypatch):
    """Return the list of positions whose wide matrices were made for all layers at once."""
    kinds, make = [], wide_tables.all_wide

    def noted(factors, kind, *rest):
        kinds.append(kind)
        return make(factors, kind, *rest)

    monkeypatch.setattr(wide_tables, "all_wide", noted)
    return kinds


def logits_and_gradients(model, call, inputs):
    model.zero_grad()
    logits = call(**inputs).logits
    logits.float().square().sum().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}


def compare(model, inputs, **tolerances):
    """Compare a pass of the tuner, whose layers share, with one of the base model in it, whose layers do not."""
    logits, gradients = logits_and_gradients(model, model.base_model, inputs)
    alone, expected = logits_and_gradients(model, model.get_base_model(), inputs)
    assert torch.equal(logits, alone)
    assert_close(gradients, expected, **tolerances)
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_each_layer_by_itself(adapted, inputs, made, name):
    compare(adapted(name), inputs(name))
    assert len(set(made)) == len(made)
    assert len(made) == FUSED[name] if name in FUSED else made


@pytest.mark.parametrize(("settings", "tables"), SETTINGS.values(), ids=SETTINGS)
def test_numbers_are_alike_with_other_settings(adapted, inputs, made, settings, tables):
    compare(adapted(**settings), inputs("roberta"))
    assert len(made) == tables


def test_feed_forward_layers_have_tables_of_their_own(adapted, backbone, inputs, made):
    geometry = Geometry.from_config(backbone("roberta").config.to_dict())
    compare(adapted(target_modules=geometry.target_regex(["q", "k", "v", "o", "up", "down"])), inputs("roberta"))
    assert {kind.feedforward for kind in made} == {False, True}


def test_numbers_are_alike_in_bfloat16(adapted, inputs, made):
    model = adapted("llama")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compare(model, inputs("llama"), rtol=1e-5, atol=1e-5)
    assert len(made) == 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_make_their_own(adapted, inputs, made, reentrant):
    model = adapted("llama_lm").train()
    compare(model, inputs("llama_lm"))
    shared = len(made)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.get_base_model().enable_input_require_grads()
    compare(model, inputs("llama_lm"))
    assert len(made) == shared


def test_two_passes_have_a_graph_each(adapted, inputs):
    model, batch = adapted("llama"), inputs("llama")
    first, second = model.base_model(**batch).logits, model.base_model(**batch).logits
    assert torch.equal(first, second)
    first.sum().backward()
    second.sum().backward()


def test_a_pass_that_fails_leaves_nothing_behind(adapted, inputs):
    model, batch = adapted("llama"), inputs("llama")
    with pytest.raises(AttributeError):
        model.base_model(**batch, labels="none")
    assert wide_tables._CURRENT.get() is None
    compare(model, batch)


def test_nothing_is_shared_without_gradients_or_between_threads(adapted, inputs, made):
    model, batch = adapted("llama"), inputs("llama")
    with torch.no_grad():
        model.base_model(**batch)
    assert not made
    seen = []
    with wide_tables.wide_tables(wide_tables.WideTables(model.base_model.lorta_hidden, model.base_model.layers_alike)):
        other = threading.Thread(target=lambda: seen.append(wide_tables.current(model.base_model.lorta_hidden)))
        other.start()
        other.join()
        assert seen == [None]
        assert wide_tables.current(model.base_model.lorta_hidden) is not None


def test_weights_that_change_between_two_passes_are_seen(adapted, inputs):
    model, batch = adapted("llama"), inputs("llama")
    before = model.base_model(**batch).logits
    with torch.no_grad():
        model.base_model.lorta_layers["default"].mul_(2)
    assert not torch.allclose(before, model.base_model(**batch).logits)
    compare(model, batch)


def test_a_layer_with_a_scale_of_its_own_makes_its_own(adapted, inputs):
    model, batch = adapted("llama"), inputs("llama")
    layer = model.get_base_model().model.layers[1].self_attn
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        getattr(layer, name).scaling["default"] *= 3
    compare(model, batch)


def test_a_deleted_adapter_is_forgotten(adapted, inputs):
    model = adapted("llama")
    model.add_adapter("second", model.peft_config["default"])
    model.delete_adapter("default")
    assert {adapter for adapter, _ in model.base_model.layers_alike} == {"second"}
    model.set_adapter("second")
    compare(model, inputs("llama"))
