"""LoTR's algebra, against the whole tensor in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_oracles import draw, geometry, slots, update

from baselines.tensor.lotr import LotrConfig, LotrModel
from baselines.tensor.places import lotr_parameters

ROLES = st.sets(st.sampled_from("qkvo"), min_size=1).map(lambda roles: tuple(sorted(roles)))


@given(st.integers(1, 4), st.integers(1, 3), ROLES, st.floats(0.1, 4.0), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_every_update_is_a_slice_of_the_tensor(rank, layers, roles, alpha, seed):
    config = LotrConfig(r=rank, alpha=alpha)
    factors = draw(LotrModel, config, geometry(layers), roles, seed)
    tensor = torch.einsum("oa,sab,ib->soi", factors["left"], factors["core"], factors["right"])
    for number, (layer, role) in enumerate(slots(layers, roles)):
        found = update(LotrModel, config, factors, layer, role)
        torch.testing.assert_close(found, alpha / rank * tensor[number])
        assert torch.linalg.matrix_rank(found) <= rank


def test_a_core_belongs_to_one_slot_and_the_pair_to_all():
    config, places = LotrConfig(r=2), slots(2, ("q", "v"))
    factors = draw(LotrModel, config, geometry(), ("q", "v"), 0)

    def moved(before):
        now = [update(LotrModel, config, factors, *place) for place in places]
        return now, [not torch.equal(new, old) for new, old in zip(now, before, strict=True)]

    first, _ = moved([torch.empty(0)] * 4)
    factors["core"][2] += 1.0
    second, changed = moved(first)
    assert changed == [False, False, True, False]
    factors["left"] += 1.0
    assert all(moved(second)[1])


@given(st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_separate_pairs_adapt_projections_of_any_size(rank, seed):
    shape, roles = geometry(heads=4, kv_heads=2), ("q", "v", "up", "down")
    config = LotrConfig(r=rank, separate=True)
    factors = draw(LotrModel, config, shape, roles, seed)
    for number, (layer, role) in enumerate(slots(2, roles)):
        left, right = factors[f"left_{role}"], factors[f"right_{role}"]
        expected = torch.einsum("oa,ab,ib->oi", left, factors["core"][number], right) / rank
        torch.testing.assert_close(update(LotrModel, config, factors, layer, role), expected)
        assert expected.shape == shape.shape(role)[::-1]
    assert sum(factor.numel() for factor in factors.values()) == lotr_parameters(shape, vars(config), roles)


def test_one_pair_for_projections_of_different_sizes_is_refused():
    with pytest.raises(ValueError, match="LoTR shares its factors between projections of one size, but q has 6 inputs"):
        draw(LotrModel, LotrConfig(), geometry(), ("q", "up"), 0)
