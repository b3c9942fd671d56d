"""Every kind of backbone under every order: which numbers reach which projection, layer and head."""

import pytest
import torch
from naive import module_update, role_update
from peft import get_peft_model
from torch.testing import assert_close
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D
from tuner_backbones import PLACES, batch, build_backbone, target_pattern

from lorta.tuner import LortaConfig, LortaLinear
from lorta.tuner.factors import ORDERS

BACKBONES = list(PLACES)
ALL_ROLES = ("q", "k", "v", "o", "gate", "up", "down")
EVEN_HEADS = {"roberta", "esm", "vit"}  # heads * head_dim is hidden and nothing is fused: each head side fits


def attach(name, order="5_way", roles="qkvo", **settings):
    """A model whose factors give updates of about the size of the weights."""
    targets = None if roles == "qkvo" else target_pattern(name, roles)
    config = LortaConfig(**({"r": 3, "alpha": 2.0, "order": order, "target_modules": targets} | settings))
    model = get_peft_model(build_backbone(name), config)
    generator = torch.Generator().manual_seed(2)
    for factor in raw_factors(model).values():
        factor.data.copy_(0.7 * torch.randn(factor.shape, generator=generator))
    return model


def raw_factors(model):
    containers = {name: value for name, value in model.base_model.named_children() if name.startswith("lorta_")}
    return {name.removeprefix("lorta_"): box["default"] for name, box in containers.items() if "default" in box}


def adapted(model, name, roles="qkvo"):
    """Yield (layer of the tensor, place, module) of every module that should have an update."""
    for place in PLACES[name]:
        if set(place.roles) & set(roles):
            for number in range(9):
                try:
                    yield place.stack + number, place, model.base_model.model.get_submodule(place.path.format(number))
                except AttributeError:
                    break


def logits(model, name):
    with torch.no_grad():
        return model(**batch(name)).logits


def distance(found, expected):
    """Largest difference, relative to the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def naive_update(model, layer, place, order, head_side="natural", by_head=False):
    config = model.peft_config["default"]
    update = module_update(order, config.geometry, raw_factors(model), layer, place.roles, head_side, by_head)
    return config.alpha / config.r * update


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("order", ORDERS)
def test_adapter_changes_nothing_at_the_start(name, order):
    model = get_peft_model(build_backbone(name), LortaConfig(order=order))
    assert torch.equal(logits(model, name), logits(build_backbone(name), name))


@pytest.mark.parametrize("roles", ["qkvo", ALL_ROLES], ids=["attention", "with feed-forward"])
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_update_is_the_sum_of_its_rank_one_terms(name, order, roles):
    model = attach(name, order, roles)
    places = list(adapted(model, name, roles))
    assert {module for _, _, module in places} == {m for m in model.modules() if isinstance(m, LortaLinear)}
    for layer, place, module in places:
        expected = naive_update(model, layer, place, order, by_head=name == "gpt_neox")
        expected = expected.T if isinstance(module.get_base_layer(), Conv1D) else expected
        assert distance(module.get_delta_weight("default").double(), expected) < 1e-6


@pytest.mark.parametrize("name", sorted(EVEN_HEADS))
@pytest.mark.parametrize("head_side", ["input", "output"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_update_on_another_head_side_is_the_sum_of_its_rank_one_terms(name, head_side, order):
    model = attach(name, order, head_side=head_side)
    for layer, place, module in adapted(model, name):
        expected = naive_update(model, layer, place, order, head_side)
        assert distance(module.get_delta_weight("default").double(), expected) < 1e-6


def calm(model):
    """Weights of the size that trained ones have: attention is not saturated, and rounding does not grow by layers."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "lorta_" not in name:
            weight.data.mul_(0.3)
    return model


def last_state(model, name):
    with torch.no_grad():
        output = model(**batch(name), output_hidden_states=True)
    return (output["decoder_hidden_states"] if name.startswith("t5") else output["hidden_states"])[-1]


MERGES = [(name, order, "natural") for name in BACKBONES for order in ORDERS]
MERGES += [(name, "5_way", head_side) for name in sorted(EVEN_HEADS) for head_side in ("input", "output")]


@pytest.mark.parametrize(("name", "order", "head_side"), MERGES)
def test_merged_forward_equals_forward_to_one_in_a_million(name, order, head_side):
    model = calm(attach(name, order, ALL_ROLES, head_side=head_side, alpha=0.3))
    factored = last_state(model, name)
    assert (factored - last_state(calm(build_backbone(name)), name)).norm() > 0.05 * factored.norm()
    model.merge_adapter()
    assert (last_state(model, name) - factored).norm() < 1e-6 * factored.norm()


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("order", ORDERS)
def test_every_merged_module_equals_the_unmerged(name, order):
    model = attach(name, order, ALL_ROLES)
    for module in (m for m in model.modules() if isinstance(m, LortaLinear)):
        x = torch.randn(4, module.in_features, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            factored = module(x)
        module.merge()
        assert distance(module(x), factored) < 1e-6


@pytest.fixture
def what_attention_reads(monkeypatch):
    """Return read(model, name): (query, key, value) of each attention block, (rows, heads, tokens, head_dim) each."""
    seen = []

    def record(module, query, key, value, *_, **__):
        seen.append([part.detach().double() for part in (query, key, value)])
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        return torch.softmax(query @ key.mT, -1).matmul(value).transpose(1, 2).contiguous(), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "record", record)

    def read(model, name):
        model.config._attn_implementation = "record"
        for part in model.modules():
            if hasattr(part, "config"):
                part.config._attn_implementation = "record"
        seen.clear()
        rows = {key: value if name == "vit" else value[:, -1:] for key, value in batch(name).items()}
        with torch.no_grad():
            model(**rows)  # one token: rotary embeddings leave the first position as it is
        return list(seen)

    return read


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "phi3", "llama", "vit", "t5"])
@pytest.mark.parametrize("order", ORDERS)
def test_each_head_of_the_models_own_attention_gets_its_rows(name, order, what_attention_reads):
    """Layer by layer: the first adapted one reads the same input as without the adapter, so its change is known."""
    first = PLACES[name][0].path.format(0)
    model = attach(name, order, layers_to_transform=[0])
    module, inputs = model.base_model.model.get_submodule(first), []
    module.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0].double()))
    after = what_attention_reads(model, name)[0]
    before = what_attention_reads(build_backbone(name), name)[0]
    config = model.peft_config["default"]
    for role, new, old in zip("qkv", after, before, strict=True):
        update = role_update(order, config.geometry, raw_factors(model), 0, role) * config.alpha / config.r
        heads = update.unflatten(0, (new.shape[1], new.shape[3]))  # (heads, head_dim, hidden)
        expected = torch.einsum("bti,hji->bhtj", inputs[0], heads)
        assert (expected.abs().amax((0, 2, 3)) > 0.01).all()
        assert distance(new - old, expected) < 1e-4, f"{role} of {name}"


def test_rows_of_cross_attention_follow_those_of_the_decoders_own():
    geometry = attach("t5").peft_config["default"].geometry
    assert geometry["layers"] == [0, 1, 2, 3]  # two of the encoder, then the decoder's own, then across


def test_fused_projections_together_are_one_lora_of_the_tensors_rank():
    for order, width in (("5_way", 3), ("4_way_per_matrix", 9)):
        model = attach("gpt2", order)
        down, up = model.base_model.model.transformer.h[0].attn.c_attn.low_rank_pair("default")
        assert down.shape == (24, width)
        assert up.shape == (72, width)


@pytest.mark.parametrize(
    ("name", "roles"), [("roberta", "qv"), ("llama", "qko"), ("t5", "v"), ("gpt2", "o"), ("roberta", ("up", "down"))]
)
@pytest.mark.parametrize("order", ORDERS)
def test_a_part_of_the_projections_gets_a_part_of_the_rows(name, roles, order):
    model = attach(name, order, roles)
    geometry = model.peft_config["default"].geometry
    assert geometry["roles"] == list(roles)
    factors = raw_factors(model)
    for container, axis in (("matrices", -2), ("slices", 0), ("feedforward_slices", 0)):
        if container in factors:
            assert factors[container].shape[axis] == len(roles)
    for layer, place, module in adapted(model, name, roles):
        expected = naive_update(model, layer, place, order)
        expected = expected.T if isinstance(module.get_base_layer(), Conv1D) else expected
        assert distance(module.get_delta_weight("default").double(), expected) < 1e-6


@pytest.mark.parametrize("order", ORDERS)
def test_chosen_layers_get_rows_of_their_own(order):
    model = attach("roberta", order, layers_to_transform=[2, 0])
    assert model.peft_config["default"].geometry["layers"] == [0, 2]
    for layer, place, module in adapted(model, "roberta"):
        if layer == 1:
            assert not isinstance(module, LortaLinear)
        else:
            expected = naive_update(model, layer, place, order)
            assert distance(module.get_delta_weight("default").double(), expected) < 1e-6


@pytest.mark.parametrize(("scaling", "factor"), [("alpha/r", 0.5), ("alpha/sqrt(r)", 1.0), ("alpha", 2.0)])
def test_scaling_multiplies_forward_and_merge(scaling, factor):
    updates = []
    for settings in ({"r": 4, "alpha": 2.0, "scaling": scaling}, {"r": 4, "alpha": 1.0, "scaling": "alpha"}):
        module = attach("roberta", **settings).base_model.model.roberta.encoder.layer[1].attention.self.key
        x = torch.eye(24)
        updates.append(module.get_delta_weight("default"))
        assert_close(module(x) - module.base_layer(x), updates[-1].T, rtol=1e-4, atol=1e-5)
    assert_close(updates[0], factor * updates[1])
