"""SaRA on tensors: the selection, the product with a sparsely changed weight, the nuclear norm's gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from baselines.sara.sparse import SparselyShiftedLinear, nuclear_gradient, smallest_magnitudes


@given(
    st.lists(st.lists(st.integers(-4, 4), min_size=1, max_size=12), min_size=1, max_size=4).flatmap(
        lambda rows: st.tuples(st.just(rows), st.integers(1, sum(map(len, rows))))
    )
)
def test_the_smallest_magnitudes_are_those_of_a_stable_sort(drawn):
    rows, count = drawn
    weights = [torch.tensor(row, dtype=torch.float32) / 3 for row in rows]
    order = np.argsort(torch.cat(weights).abs().numpy(), kind="stable")[:count]
    expected = [(number, i) for number, row in enumerate(rows) for i in range(len(row))]
    found, threshold = smallest_magnitudes(weights, count)
    assert {(n, int(i)) for n, indices in enumerate(found) for i in indices} == {expected[i] for i in order}
    magnitudes = torch.cat([weight[indices] for weight, indices in zip(weights, found, strict=True)]).abs()
    assert magnitudes.max() < threshold <= torch.nextafter(magnitudes.max(), torch.tensor(torch.inf))


def test_more_weights_than_there_are_cannot_be_selected():
    with pytest.raises(ValueError, match="cannot select 5 of 4 weights: use a lower rank"):
        smallest_magnitudes([torch.ones(2, 2)], 5)


def test_the_product_and_its_gradients_are_those_of_the_scattered_weight():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight, indices = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 7, 19, 7])
    values = torch.randn(4, dtype=torch.float64, requires_grad=True)
    dense = weight.flatten().index_add(0, indices, values).view(4, 5)
    assert_close(SparselyShiftedLinear.apply(x, weight, indices, values), functional.linear(x, dense))
    assert torch.autograd.gradcheck(
        lambda x, values: SparselyShiftedLinear.apply(x, weight, indices, values), (x, values)
    )


def test_the_nuclear_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 5, generator=generator)
    found = nuclear_gradient(matrix)
    for position in range(30):
        step = torch.zeros(30, dtype=torch.float64)
        step[position] = 1e-5
        up, down = (torch.linalg.matrix_norm(matrix.double() + s * step.view(6, 5), "nuc") for s in (1, -1))
        assert found.flatten()[position].item() == pytest.approx(float((up - down) / 2e-5), abs=1e-4)


def test_the_nuclear_gradient_leaves_singular_values_of_zero_alone():
    assert torch.equal(nuclear_gradient(torch.zeros(3, 4)), torch.zeros(3, 4))
    column, row = torch.tensor([[3.0], [4.0]]) / 5, torch.tensor([[0.6, 0.0, 0.8]])
    assert_close(nuclear_gradient(7 * column @ row), column @ row)
