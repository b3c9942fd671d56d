"""The algebra of tensor-train layers against the dense tensor, and the compressed head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.loretta.shapes import RELEASED_SHAPES, tensor_shape
from baselines.loretta.tensor_train import TensorTrainLinear, compress_head

RELEASED = [
    sides for small, large in RELEASED_SHAPES for sides in ((small, large), (large, small)) if small * large < 2e6
]


def dense_matrix(layer: TensorTrainLinear) -> torch.Tensor:
    """Return the layer's weight by one einsum over all cores, in float64."""
    letters = "abcdefghijklmnop"
    terms = [f"{letters[i]}{letters[i].upper()}{letters[i + 1]}" for i in range(len(layer.cores))]
    outer = letters[0], letters[len(terms)]
    equation = ",".join(terms) + "->" + outer[0] + "".join(term[1] for term in terms) + outer[1]
    return torch.einsum(equation, [core.detach().double() for core in layer.cores]).reshape(layer.inputs, layer.outputs)


def check_against_dense(layer: TensorTrainLinear, tolerance: float) -> None:
    weight = dense_matrix(layer)
    x = torch.randn(3, layer.inputs)
    torch.testing.assert_close(layer.weight_matrix().double(), weight, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        layer(x).double(), x.double() @ weight + layer.bias.double(), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("inputs", "outputs"), RELEASED)
def test_a_layer_of_a_released_shape_is_its_dense_matrix(inputs, outputs):
    torch.manual_seed(0)
    check_against_dense(TensorTrainLinear(inputs, outputs, tensor_shape(inputs, outputs), 3, bias=True), 1e-4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([6, 8, 24, 26, 40, 96]), st.sampled_from([2, 8, 12, 48]), st.integers(1, 9), st.integers(0, 99))
def test_a_layer_is_its_dense_matrix_at_any_size_and_rank(inputs, outputs, tensor_rank, seed):
    torch.manual_seed(seed)
    layer = TensorTrainLinear(inputs, outputs, tensor_shape(inputs, outputs), tensor_rank, bias=True)
    check_against_dense(layer, 1e-4)


def test_a_layer_is_evaluated_around_the_rank_only_where_a_core_ends_at_the_inputs():
    boundary = TensorTrainLinear(768, 64, tensor_shape(768, 64), 5, bias=False)
    straddled = TensorTrainLinear(1024, 64, tensor_shape(1024, 64), 5, bias=False)
    assert [matrix.shape for matrix in boundary.matrices()] == [(768, 5), (5, 64)]
    assert [matrix.shape for matrix in straddled.matrices()] == [(1024, 64)]


@pytest.mark.parametrize(("inputs", "outputs"), [(768, 8), (64, 768), (96, 64)])
def test_starting_entries_have_variance_one_over_the_sum_of_the_sides(inputs, outputs):
    torch.manual_seed(0)  # one draw is up to twice off, so the mean of many is tested
    shape = tensor_shape(inputs, outputs)
    draws = [
        TensorTrainLinear(inputs, outputs, shape, 5, bias=False).weight_matrix().square().mean() for _ in range(300)
    ]
    assert float(torch.stack(draws).mean()) == pytest.approx(1 / (inputs + outputs), rel=0.1)


@pytest.mark.parametrize(("name", "path"), [("roberta", "classifier.dense"), ("deberta", "pooler.dense")])
def test_the_hidden_layer_of_a_head_becomes_a_tensor_train(backbone, tokens, name, path):
    model = backbone(name)
    compress_head(model, {"tensor_rank": 3})
    dense = model.model.get_submodule(path)
    assert isinstance(dense, TensorTrainLinear)
    assert (dense.inputs, dense.outputs) == (24, 24)
    assert model.model(tokens).logits.isfinite().all()


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_head_without_a_hidden_layer_stays_as_it_is(backbone, name):
    model = backbone(name)
    before = {path: type(module) for path, module in model.model.named_modules()}
    compress_head(model, {"tensor_rank": 3})
    assert {path: type(module) for path, module in model.model.named_modules()} == before


def test_a_layer_can_be_evaluated_as_it_was_at_the_start():
    layer = TensorTrainLinear(24, 8, (4, 6, 8), 3, bias=True, keep_start=True)
    x = torch.randn(5, 24)
    before = layer(x)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    torch.testing.assert_close(layer(x, start=True), before)
    assert not torch.allclose(layer(x), before)
