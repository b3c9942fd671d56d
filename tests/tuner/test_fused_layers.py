"""When an adapted layer runs as one operation with its base layer, and that its numbers stay the same."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

STRIDED = {
    "transposed": lambda: torch.randn(3, 4, 24).transpose(0, 1),
    "expanded": lambda: torch.randn(3, 1, 24).expand(3, 4, 24),
    "every other row": lambda: torch.randn(3, 8, 24)[:, ::2],
    "every other feature": lambda: torch.randn(3, 4, 48)[..., ::2],
    "one vector": lambda: torch.randn(24),
    "columns": lambda: torch.randn(24, 5).T,
    "four axes": lambda: torch.randn(2, 3, 4, 24).transpose(1, 2),
    "features first": lambda: torch.randn(24, 3, 4).permute(1, 2, 0),
    "no rows": lambda: torch.randn(0, 24),
}


@pytest.mark.parametrize("strided", STRIDED)
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_every_layout_give_the_same_numbers(layers, strided, bias):
    """The update is added into the base layer's output, which must be that very memory."""
    model, members = layers()
    output = model.base_model.model.roberta.encoder.layer[0].attention.output.dense  # heads on its input
    x = STRIDED[strided]()
    for layer in (*members, output):
        if not bias:
            layer.base_layer.bias = None
        plain = nn.functional.linear(x, layer.weight + layer.get_delta_weight("default"), layer.base_layer.bias)
        assert_close(layer(x), plain, rtol=1e-4, atol=1e-4)


def gradients_of(member, x):
    for factor in member.factors("default").values():
        factor.grad = None
    member(x).square().sum().backward()
    return [factor.grad for factor in member.factors("default").values()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("half_base", [False, True])
def test_autocast_runs_the_same_operations_in_its_dtype(layers, dtype, given, half_base):
    model, members = layers()
    output = model.base_model.model.roberta.encoder.layer[0].attention.output.dense  # heads on its input
    if half_base:
        for layer in (*members, output):
            layer.base_layer.to(dtype)
    x = torch.randn(2, 24).to(given)
    for layer in (*members, output):
        with torch.autocast("cpu", dtype=dtype):
            assert layer._fusible(x) == "default"
            found = layer(x)
        assert found.dtype == dtype
        weight = layer.weight.float() + layer.get_delta_weight("default")
        plain = nn.functional.linear(x.float(), weight, layer.base_layer.bias.float())
        assert (found - plain).norm() < 0.01 * plain.norm()
    with torch.autocast("cpu", dtype=dtype), torch.autocast("cpu", enabled=False):
        assert members[0]._fusible(torch.randn(2, 24)) == (None if half_base else "default")


def test_members_that_autocast_treats_differently_share_nothing(layers):
    _, members = layers()
    x = torch.randn(2, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        members[0](x)
        with torch.autocast("cpu", dtype=torch.float16):
            assert members[1](x).dtype == torch.float16
    assert members[2](x).dtype == torch.float32


def hooked(layer):
    layer.base_layer.register_forward_hook(lambda *_: None)


def unfrozen(layer):
    layer.base_layer.weight.requires_grad_()


def unfrozen_bias(layer):
    layer.base_layer.bias.requires_grad_()


def wrapped(layer):
    layer.base_layer.forward = layer.base_layer.forward


@pytest.mark.parametrize("change", [hooked, unfrozen, unfrozen_bias, wrapped])
def test_a_base_layer_that_must_run_itself_does(layers, change):
    _, members = layers()
    x = torch.randn(2, 24)
    fused = gradients_of(members[0], x)
    assert members[0]._fusible(x) == "default"
    change(members[0])
    assert members[0]._fusible(x) is None
    assert_close(gradients_of(members[0], x), fused, rtol=1e-5, atol=1e-4)


def test_a_hook_of_the_base_layer_sees_and_changes_its_output(layers):
    _, members = layers()
    x = torch.randn(2, 24)
    before = members[0](x)
    members[0].base_layer.register_forward_hook(lambda module, inputs, output: output + 1)
    assert_close(members[0](x), before + 1)
