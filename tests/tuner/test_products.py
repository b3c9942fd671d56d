"""The fused operations of a forward pass and their derivatives."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lorta.tuner.products import HeadsOnInput, HeadsOnOutput, InputProduct

BATCHES = [(5,), (2, 3), (2, 1, 3)]


def double(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def heads_on_output(batch, bias, frozen_input=False):
    """Arguments: 4 inputs, 6 outputs, rank 2."""
    x, weight = double(*batch, 4), double(6, 4, seed=1).detach()
    offset = double(6, seed=2).detach() if bias else None
    update = double(4, 2, seed=3), double(6, 2, seed=4)
    return (x.detach() if frozen_input else x, weight, offset, *update)


def heads_on_input(batch, bias, frozen_input=False):
    """Arguments: 4 inputs, 5 outputs, rank 3."""
    x, weight = double(*batch, 4), double(5, 4, seed=1).detach()
    offset = double(5, seed=2).detach() if bias else None
    update = double(4, 3, seed=3), double(5, 3, seed=4)
    return (x.detach() if frozen_input else x, weight, offset, *update)


def plain_heads_on_output(x, weight, bias, hidden, wide):
    return nn.functional.linear(x, weight, bias) + x @ hidden @ wide.T


def plain_heads_on_input(x, weight, bias, wide, hidden):
    return nn.functional.linear(x, weight, bias) + x @ wide @ hidden.T


def fused_heads_on_output(x, weight, bias, hidden, wide):
    product, alias = InputProduct.apply(x, hidden)
    return HeadsOnOutput.apply(alias, product, weight, bias, wide)[0]


OPERATIONS = [
    pytest.param(fused_heads_on_output, plain_heads_on_output, heads_on_output, id="heads_on_output"),
    pytest.param(HeadsOnInput.apply, plain_heads_on_input, heads_on_input, id="heads_on_input"),
]


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("fused", "plain", "arguments"), OPERATIONS)
def test_fused_operation_equals_the_plain_one(fused, plain, arguments, bias, batch):
    assert_close(fused(*arguments(batch, bias)), plain(*arguments(batch, bias)))


@pytest.mark.parametrize("frozen_input", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("fused", "plain", "arguments"), OPERATIONS)
def test_first_and_second_derivatives_are_those_of_finite_differences(fused, plain, arguments, bias, frozen_input):
    inputs = arguments((2, 2), bias, frozen_input)
    assert torch.autograd.gradcheck(fused, inputs)
    assert torch.autograd.gradgradcheck(fused, inputs)


@pytest.mark.parametrize(("fused", "plain", "arguments"), OPERATIONS)
def test_gradients_of_a_strided_input_and_output_are_right(fused, plain, arguments):
    gradients = []
    for operation in (fused, plain):
        x, *others = arguments((3, 2), True)
        operation(x.transpose(0, 1), *others).transpose(0, 2)[::2].sum().backward()
        gradients.append([x.grad, *(value.grad for value in others[3:])])
    assert_close(*gradients)


def reading():
    """x, hidden, then the wide matrices of two projections with 4 and 6 outputs, and their weights."""
    x, hidden = double(2, 3, 4), double(4, 2, seed=1)
    wides = [double(4, 2, seed=2), double(6, 2, seed=3)]
    return (x, hidden, *wides), [double(4, 4, seed=6).detach(), double(6, 4, seed=7).detach()]


def readers(x, hidden, wides, weights, skipped=()):
    """Projections that read x one after the other; the output of a skipped one is not used."""
    product, alias = InputProduct.apply(x, hidden)
    outputs = []
    for wide, weight in zip(wides, weights, strict=True):
        output, alias, product = HeadsOnOutput.apply(alias, product, weight, None, wide)
        outputs.append(output)
    return tuple(output for number, output in enumerate(outputs) if number not in skipped)


@pytest.mark.parametrize("skipped", [(), (0,), (1,)])
def test_readers_of_one_input_add_up_their_gradients(skipped):
    (x, hidden, *wides), weights = reading()

    def run(x, hidden, *wides):
        return readers(x, hidden, wides, weights, skipped)

    plain = [x @ (weight + wide @ hidden.T).T for weight, wide in zip(weights, wides, strict=True)]
    kept = [output for number, output in enumerate(plain) if number not in skipped]
    assert_close(run(x, hidden, *wides), tuple(kept))
    assert torch.autograd.gradcheck(run, (x, hidden, *wides))
    assert torch.autograd.gradgradcheck(run, (x, hidden, *wides))


def test_a_second_backward_pass_gives_the_same_gradients_again():
    (x, hidden, *wides), weights = reading()
    total = sum(output.square().sum() for output in readers(x, hidden, wides, weights))
    first = torch.autograd.grad(total, (x, hidden, *wides), retain_graph=True)
    assert_close(torch.autograd.grad(total, (x, hidden, *wides)), first)


def test_a_batch_of_gradients_at_once_is_that_of_one_after_the_other():
    """`is_grads_batched` takes the backward pass under vmap."""
    (x, hidden, *wides), weights = reading()
    outputs = torch.cat(readers(x, hidden, wides, weights), dim=-1).flatten()[:5]
    directions = torch.eye(5, dtype=torch.float64)
    batched = torch.autograd.grad(outputs, (x, hidden, *wides), directions, is_grads_batched=True, retain_graph=True)
    for number, direction in enumerate(directions):
        single = torch.autograd.grad(outputs, (x, hidden, *wides), direction, retain_graph=True)
        assert_close([value[number] for value in batched], list(single))


def test_an_input_without_a_gradient_gets_none():
    (x, hidden, *wides), weights = reading()
    x = x.detach()
    _, alias = InputProduct.apply(x, hidden)
    assert not alias.requires_grad
    sum(output.sum() for output in readers(x, hidden, wides, weights)).backward()
    assert x.grad is None
    assert hidden.grad is not None
