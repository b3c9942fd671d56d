import math

import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped
from torch.testing import assert_close

from lorta.tuner.factors import (
    MODES,
    Factors,
    Position,
    delta_weight,
    factored_update,
    initial_bounds,
    low_rank_pair,
    rows_per_head,
)

SIZES = st.integers(1, 4)


@st.composite
def cases(draw):
    """Factors in float64 and a position in them, with any number of query heads to a key and value head."""
    hidden, head_dim, kv_heads, group, layers, matrices, rank = (draw(SIZES) for _ in range(7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    rows = (hidden, head_dim, kv_heads * group, layers, matrices)
    factors = Factors(*(torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in rows))
    heads = draw(st.sampled_from((kv_heads, kv_heads * group)))
    position = Position(
        draw(st.integers(0, layers - 1)), draw(st.integers(0, matrices - 1)), heads, draw(st.booleans())
    )
    return factors, position, draw(st.floats(0.1, 4.0))


def naive_delta(factors, position, scaling):
    """Sum the rank-one terms entry by entry, straight from the definition of the tensor."""
    hidden, head_dim = factors.hidden.shape[0], factors.head_dim.shape[0]
    share = factors.heads.shape[0] // position.heads
    delta = torch.zeros(position.heads * head_dim, hidden, dtype=torch.float64)
    for r in range(factors.hidden.shape[1]):
        layer_and_matrix = factors.layers[position.layer_row, r] * factors.matrices[position.matrix_row, r]
        for h in range(position.heads):
            head = sum(factors.heads[h * share + copy, r] for copy in range(share)) / share
            for j in range(head_dim):
                row = factors.hidden[:, r] * factors.head_dim[j, r] * head * layer_and_matrix
                delta[h * head_dim + j] += scaling * row
    return delta if position.heads_on_output else delta.T


@settings(max_examples=60, deadline=None)
@given(cases())
def test_update_equals_the_sum_of_its_rank_one_terms(case):
    assert_close(delta_weight(*case), naive_delta(*case))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_factored_evaluation_equals_the_dense_update(case):
    down, up = low_rank_pair(*case)
    x = torch.randn(2, 3, down.shape[0], dtype=torch.float64)
    assert_close(factored_update(x, down, up), x @ delta_weight(*case).T)


@settings(max_examples=30, deadline=None)
@given(cases())
def test_ranks_add(case):
    factors, position, scaling = case
    one = [Factors(*(factor[:, [r]] for factor in factors)) for r in range(factors.hidden.shape[1])]
    assert_close(delta_weight(*case), sum(delta_weight(part, position, scaling) for part in one))


@settings(max_examples=30, deadline=None)
@given(cases())
def test_order_of_the_components_is_irrelevant(case):
    factors, position, scaling = case
    backwards = Factors(*(factor.flip(1) for factor in factors))
    assert_close(delta_weight(backwards, position, scaling), delta_weight(*case))


@settings(max_examples=20, deadline=None)
@given(cases())
def test_shared_heads_take_the_projection_of_the_ungrouped_update_on_equal_copies(case):
    factors, position, scaling = case
    heads, head_dim = factors.heads.shape[0], factors.head_dim.shape[0]
    ungrouped = delta_weight(factors, position._replace(heads=heads, heads_on_output=True), scaling)
    copies = ungrouped.reshape(position.heads, heads // position.heads, head_dim, -1)
    expected = copies.mean(dim=1).flatten(0, 1)
    assert_close(delta_weight(factors, position._replace(heads_on_output=True), scaling), expected)


def test_ungrouped_heads_keep_their_rows():
    heads = torch.randn(4, 3)
    assert rows_per_head(heads, 4) is heads


def test_bounds_are_those_of_the_released_code():
    expected = {"hidden": 0.5, "head_dim": 0.0, "heads": 1.2247, "layers": 1.2247, "matrices": 1.2247}
    assert initial_bounds(4, "reference", 0.0) == pytest.approx(expected, abs=1e-4)
    assert initial_bounds(4, "reference", 1.0) == pytest.approx(expected | dict.fromkeys(MODES[2:], 0.5), abs=1e-4)


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_neutral_bounds_are_the_reference_bounds_at_rank_four(rank):
    assert initial_bounds(rank, "rank_neutral", 0.0) == initial_bounds(4, "reference", 0.0)
    assert initial_bounds(rank, "reference", 0.0)["hidden"] == 1 / math.sqrt(rank)


def test_signatures_state_the_shapes_that_the_functions_take():
    checked = jaxtyped(typechecker=beartype)(low_rank_pair)
    factors = Factors(*(torch.ones(rows, 2) for rows in (6, 3, 2, 5, 4)))
    checked(factors, Position(4, 3, 2, True), 1.0)
    down_up = jaxtyped(typechecker=beartype)(factored_update)
    with pytest.raises(TypeCheckError):
        down_up(torch.ones(1, 6), torch.ones(6, 2), torch.ones(6, 3))
