"""The fused operations of a forward pass and their derivatives."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lorta.tuner.products import HeadsOnInput, HeadsOnOutput

BATCHES = [(5,), (2, 3), (2, 1, 3)]


def double(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def heads_on_output(batch, bias, frozen_input=False):
    """Arguments: 4 inputs, 6 outputs, rank 2."""
    x, weight = double(*batch, 4), double(6, 4, seed=1).detach()
    offset = double(6, seed=2).detach() if bias else None
    update = double(*batch, 2, seed=3), double(6, 2, seed=4)
    return (x.detach() if frozen_input else x, weight, offset, *update)


def heads_on_input(batch, bias, frozen_input=False):
    """Arguments: 4 inputs, 5 outputs, rank 3."""
    x, weight = double(*batch, 4), double(5, 4, seed=1).detach()
    offset = double(5, seed=2).detach() if bias else None
    update = double(4, 3, seed=3), double(5, 3, seed=4)
    return (x.detach() if frozen_input else x, weight, offset, *update)


def plain_heads_on_output(x, weight, bias, product, wide):
    return nn.functional.linear(x, weight, bias) + product @ wide.T


def plain_heads_on_input(x, weight, bias, wide, hidden):
    return nn.functional.linear(x, weight, bias) + x @ wide @ hidden.T


def fused_heads_on_output(*arguments):
    return HeadsOnOutput.apply(*arguments)[0]


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
        others[2] = others[2].transpose(0, 1) if arguments is heads_on_output else others[2]
        operation(x.transpose(0, 1), *others).transpose(0, 2)[::2].sum().backward()
        gradients.append([x.grad, *(value.grad for value in others[3:])])
    assert_close(*gradients)
