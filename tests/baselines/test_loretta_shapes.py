"""LoRETTA's factorisations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baselines.loretta.shapes import RELEASED_SHAPES, core_shapes, split_side, tensor_shape, train_parameters


@pytest.mark.parametrize("sides", RELEASED_SHAPES)
def test_a_released_list_multiplies_to_its_matrix(sides):
    assert math.prod(RELEASED_SHAPES[sides]) == sides[0] * sides[1]
    assert tensor_shape(*sides) == tensor_shape(*sides[::-1]) == RELEASED_SHAPES[sides]


def test_a_matrix_of_768_by_16_has_the_released_count():
    assert train_parameters(768, 16, {"tensor_rank": 5}) == train_parameters(16, 768, {"tensor_rank": 5}) == 780


def test_the_rule_for_other_sizes_reproduces_the_released_lists_of_width_768():
    assert split_side(768) + split_side(64)[::-1] == RELEASED_SHAPES[64, 768]
    assert split_side(768) + split_side(8)[::-1] == RELEASED_SHAPES[8, 768]
    assert split_side(768) + split_side(768)[::-1] == RELEASED_SHAPES[768, 768]


@pytest.mark.parametrize(
    ("inputs", "outputs", "shape"),
    [
        (96, 64, (8, 12, 8, 8)),
        (128, 8, (4, 4, 8, 8)),
        (8, 384, (8, 8, 8, 6)),
        (384, 384, (6, 8, 8, 8, 8, 6)),
        (26, 8, (2, 13, 8)),
    ],
)
def test_a_size_outside_the_released_table_is_split_by_the_rule(inputs, outputs, shape):
    assert tensor_shape(inputs, outputs) == shape


@given(st.integers(2, 3000))
def test_a_side_becomes_small_rising_factors(size):
    factors = split_side(size)
    assert math.prod(factors) == size
    assert list(factors) == sorted(factors)
    assert all(
        factor <= 12 or _is_prime(factor) or any(_is_prime(other) and other > 12 for other in factors)
        for factor in factors
    )


def _is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


def test_a_chosen_list_wins_and_must_multiply_to_the_matrix():
    assert tensor_shape(768, 8, {"768x8": [8, 12, 8, 8]}) == (8, 12, 8, 8)
    with pytest.raises(ValueError, match=r"shapes\['768x8'\] must multiply to 6144, got \[8, 8\]"):
        tensor_shape(768, 8, {"768x8": [8, 8]})


def test_cores_chain_by_the_tensor_rank_and_end_in_one():
    assert core_shapes((8, 8, 12, 8), 5) == [(1, 8, 5), (5, 8, 5), (5, 12, 5), (5, 8, 1)]
