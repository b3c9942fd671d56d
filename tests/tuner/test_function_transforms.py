"""torch.func and forward-mode differentiation: they give what a backward pass gives, with LoRTA as with LoRA."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.testing import assert_close as assert_close_to

CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # llama normalises in float32


def assert_close(found, expected, **tolerance):
    assert_close_to(found, expected, **(tolerance or CLOSE))


@pytest.fixture(params=["roberta", "llama"])
def loss(request, adapted):
    """A loss of (factors, one row of tokens), and the factors."""
    model = adapted(request.param, task_type="SEQ_CLS").double()
    model.base_model.model.set_attn_implementation("eager")  # PyTorch's fused attention has no forward mode
    for container in (getattr(model.base_model, name) for name in model.base_model.tuner_layer_cls.adapter_layer_names):
        for factor in container.values():
            factor.data = factor.data.double()
    factors = {name: value.detach() for name, value in model.named_parameters() if "lorta_" in name}

    def compute(factors, row):
        return functional_call(model, factors, (row[None],)).logits.square().sum()

    return compute, factors


def gradients(compute, factors, row):
    leaves = {name: value.clone().requires_grad_() for name, value in factors.items()}
    found = torch.autograd.grad(compute(leaves, row), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def test_grad_is_the_gradient(loss, tokens):
    compute, factors = loss
    assert_close(grad(compute)(factors, tokens[0]), gradients(compute, factors, tokens[0]))


def test_vmap_of_grad_gives_the_gradients_of_each_row(loss, tokens):
    compute, factors = loss
    of_rows = vmap(grad(compute), in_dims=(None, 0))(factors, tokens)
    for number, row in enumerate(tokens):
        assert_close({name: value[number] for name, value in of_rows.items()}, gradients(compute, factors, row))


def test_vmap_over_adapters_gives_the_loss_of_each(loss, tokens):
    compute, factors = loss
    several = {name: torch.stack([value, 2 * value]) for name, value in factors.items()}
    expected = [compute({name: scale * value for name, value in factors.items()}, tokens[0]) for scale in (1, 2)]
    assert_close(vmap(compute, in_dims=(0, None))(several, tokens[0]), torch.stack(expected))


def test_jvp_and_vjp_agree_with_the_gradient(loss, tokens):
    compute, factors = loss
    direction = {name: torch.randn_like(value) for name, value in factors.items()}
    value, slope = jvp(lambda factors: compute(factors, tokens[0]), (factors,), (direction,))
    expected = gradients(compute, factors, tokens[0])
    assert_close(value, compute(factors, tokens[0]))
    assert_close(slope, sum((direction[name] * expected[name]).sum() for name in expected))
    _, pull = vjp(lambda factors: compute(factors, tokens[0]), factors)
    assert_close(pull(torch.ones_like(value))[0], expected)


def test_dual_numbers_give_the_slope(loss, tokens):
    compute, factors = loss
    direction = {name: torch.randn_like(value) for name, value in factors.items()}
    with forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(value, direction[name]) for name, value in factors.items()}
        slope = forward_ad.unpack_dual(compute(dual, tokens[0])).tangent
    expected = gradients(compute, factors, tokens[0])
    assert_close(slope, sum((direction[name] * expected[name]).sum() for name in expected))


def test_second_derivatives_agree_with_those_of_two_backward_passes(layers):
    _, members = layers()
    x = torch.randn(2, 24)

    def compute(x):
        return sum(member(x).pow(3).sum() for member in members)

    expected = torch.autograd.functional.hessian(compute, x)
    assert_close(hessian(compute)(x), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_jacobians_of_a_layers_input_agree(layers):
    """The input alone is transformed; the factors are plain parameters."""
    _, members = layers()
    x = torch.randn(2, 24)
    plain = torch.autograd.functional.jacobian(members[0], x)
    for transform in (jacrev, jacfwd):
        assert_close(transform(members[0])(x), plain, rtol=1e-4, atol=1e-4)


def test_a_pass_of_a_transform_is_not_shared_with_one_outside(layers):
    _, members = layers()
    x = torch.randn(2, 24)
    members[0](x)  # the key could read what the query left
    slope = grad(lambda x: members[1](x).square().sum())(x)
    leaf = x.clone().requires_grad_()
    members[1](leaf).square().sum().backward()
    assert_close(slope, leaf.grad, rtol=1e-4, atol=1e-4)
