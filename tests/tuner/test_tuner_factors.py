"""The algebra of the factors against sums of rank-one terms in float64, for every order and kind of module."""

import math

import naive
import pytest
import torch
from beartype import beartype
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError, jaxtyped
from torch.testing import assert_close

from lorta.tuner.factors import (
    ORDERS,
    Position,
    Slice,
    initial_bounds,
    low_rank_pair,
    rows_per_head,
    scaling_factor,
    slice_of,
    wide,
)
from lorta.tuner.targets import factor_shapes

ATTENTION, GATED = ("q", "k", "v", "o"), ("gate", "up", "down")
MODULES = ["one", "roles", "heads"]  # a projection alone, several one after the other, q, k and v of each head in turn


class Case:
    """Random factors of an adapter, and one module in it."""

    def __init__(self, draw, order=None, kind=None):
        self.order = order or draw(st.sampled_from(list(ORDERS)))
        kind = kind or draw(st.sampled_from(MODULES))
        kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 2)) if kind != "heads" else 1
        roles = draw(st.sets(st.sampled_from(ATTENTION + GATED), min_size=1)) if kind == "one" else set("qkvo")
        roles |= set(draw(st.sampled_from(((), GATED)))) if kind != "one" else set()
        self.geometry = {
            "hidden": draw(st.integers(1, 4)),
            "head_dim": draw(st.integers(1, 3)),
            "heads": kv_heads * group,
            "kv_heads": kv_heads,
            "layers": draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(sorted)),
            "roles": [role for role in ATTENTION + GATED if role in roles],
            "feedforward_heads": draw(st.integers(1, 3)),
            "feedforward_head_dim": draw(st.integers(1, 3)),
        }
        self.rank, self.scaling = draw(st.integers(1, 3)), draw(st.floats(0.1, 4.0))
        generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
        self.factors = {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in naive.shapes(self.order, self.geometry, self.rank).items()
        }
        self.layer = draw(st.sampled_from(self.geometry["layers"]))
        self.by_head = kind == "heads"
        if kind == "one":
            self.roles = (draw(st.sampled_from(self.geometry["roles"])),)
        else:
            self.roles = (
                ("gate", "up") if kind == "roles" and "gate" in roles and draw(st.booleans()) else ("q", "k", "v")
            )
        self.head_side = draw(st.sampled_from(("natural", "output") + (("input",) if kind == "one" else ())))

    @property
    def position(self):
        feedforward = self.roles[0] in GATED
        own = [role for role in self.geometry["roles"] if (role in GATED) == feedforward]
        on_output = self.roles[0] not in ("o", "down")
        if self.head_side != "natural" and not feedforward:
            on_output = self.head_side == "output"
        heads = self.geometry["feedforward_heads" if feedforward else "heads"]
        grouped = self.geometry["kv_heads"] if on_output else heads
        return Position(
            layer_row=self.geometry["layers"].index(self.layer),
            matrix_rows=tuple(self.geometry["roles"].index(role) for role in self.roles),
            own_rows=tuple(own.index(role) for role in self.roles),
            heads=tuple(grouped if role in ("k", "v") else heads for role in self.roles),
            heads_on_output=on_output,
            feedforward=feedforward,
            by_head=self.by_head,
        )

    def of_block(self, factors=None):
        """The factors as a layer sees them: those of its kind of block, without the prefix."""
        factors = factors or self.factors
        prefix = "feedforward_" if self.position.feedforward else ""
        own = {"head_dim", "heads", "slices"}
        kept = {name: value for name, value in factors.items() if name.removeprefix("feedforward_") not in own}
        return kept | {name: factors[prefix + name] for name in own if prefix + name in factors}

    def pair(self, factors=None):
        part = slice_of(self.of_block(factors), ORDERS[self.order], self.position, self.scaling)
        return low_rank_pair(part, self.position.heads_on_output)

    def update(self, factors=None):
        down, up = self.pair(factors)
        return up @ down.T

    def naive(self, factors=None, **changes):
        arguments = (self.order, self.geometry | changes, factors or self.factors, self.layer, self.roles)
        return self.scaling * naive.module_update(*arguments, self.head_side, self.by_head)


@st.composite
def cases(draw, order=None, kind=None):
    return Case(draw, order, kind)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_update_equals_the_sum_of_its_rank_one_terms(order, kind, data):
    case = data.draw(cases(order, kind))
    assert_close(case.update(), case.naive())


@settings(max_examples=40, deadline=None)
@given(cases())
def test_ranks_add(case):
    ranks = ({name: factor[..., [r]] for name, factor in case.factors.items()} for r in range(case.rank))
    assert_close(case.update(), sum(case.update(part) for part in ranks))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_order_of_the_components_is_irrelevant(case):
    assert_close(case.update({name: factor.flip(-1) for name, factor in case.factors.items()}), case.update())


@settings(max_examples=40, deadline=None)
@given(cases())
def test_update_is_no_wider_than_its_rank_says(case):
    separate = ORDERS[case.order].separate == "matrices"
    assert case.pair()[0].shape[1] == case.rank * (len(case.roles) if separate else 1)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_factors_have_the_shapes_of_the_order(case):
    expected = naive.shapes(case.order, case.geometry, case.rank)
    assert {
        name: (*shape, case.rank) for name, shape in factor_shapes(ORDERS[case.order], case.geometry).items()
    } == expected


@settings(max_examples=30, deadline=None)
@given(cases(kind="one"))
def test_shared_heads_take_the_projection_of_the_ungrouped_update_on_equal_copies(case):
    case.roles, case.head_side = tuple(role for role in case.geometry["roles"] if role in "kv")[:1], "output"
    assume(case.roles)
    kv_heads, head_dim = case.geometry["kv_heads"], case.geometry["head_dim"]
    ungrouped = case.naive(kv_heads=case.geometry["heads"])
    equal_copies = ungrouped.reshape(kv_heads, -1, head_dim, case.geometry["hidden"])
    assert_close(case.update(), equal_copies.mean(dim=1).flatten(0, 1))


@settings(max_examples=30, deadline=None)
@given(cases(order="5_way", kind="one"))
def test_ungrouped_heads_give_the_update_of_the_paper(case):
    """Each head of q, k and v gets A diag(C_H[h] * C_L[l] * C_M[m]) B^T; o the same transposed."""
    case.geometry["kv_heads"], case.head_side = case.geometry["heads"], "natural"
    assume(not case.position.feedforward)
    f, place = case.factors, case.position
    row = f["layers"][place.layer_row] * f["matrices"][place.matrix_rows[0]]
    heads = [f["hidden"] @ torch.diag(head * row) @ f["head_dim"].T for head in f["heads"]]  # (hidden, head_dim) each
    side_by_side = case.scaling * torch.cat(heads, dim=1)
    assert_close(case.update(), side_by_side.T if place.heads_on_output else side_by_side)


def test_ungrouped_heads_keep_their_rows():
    heads = torch.randn(4, 3)
    assert rows_per_head(heads, 4) is heads


@pytest.mark.parametrize(
    ("order", "count"),
    [
        ("5_way", 4_292),
        ("4_way_per_matrix", 17_152),
        ("4_way_per_layer", 136_320),
        ("3_way_joint", 8_320),
        ("3_way_per_matrix", 20_992),
    ],
)
def test_an_order_costs_at_llama2_7b_size_what_its_formula_says(order, count):
    geometry = {"hidden": 4096, "head_dim": 128, "heads": 32, "kv_heads": 32, "layers": range(32), "roles": [*"qkvo"]}
    assert sum(math.prod(shape) for shape in factor_shapes(ORDERS[order], geometry).values()) == count


@pytest.mark.parametrize(("scaling", "expected"), [("alpha/r", 2.0), ("alpha/sqrt(r)", 8.0), ("alpha", 32.0)])
def test_scaling_of_alpha_32_at_rank_16(scaling, expected):
    assert scaling_factor(scaling, 32.0, 16) == expected


def test_bounds_are_those_of_the_released_code():
    modes = dict.fromkeys(("heads", "layers", "matrices", "slices"), 1.2247)  # sqrt(6 / 4), methods of torch's kaiming
    bounds = initial_bounds(4, "reference", 0.0)
    assert {name: bounds[name] for name in modes} == pytest.approx(modes, abs=1e-4)
    assert (bounds["hidden"], bounds["head_dim"], bounds["feedforward_head_dim"]) == (0.5, 0.0, 0.0)
    assert bounds["feedforward_heads"] == bounds["heads"]
    assert bounds["feedforward_slices"] == bounds["slices"]
    assert initial_bounds(4, "reference", 1.0)["layers"] == 0.5


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_neutral_bounds_are_the_reference_bounds_at_rank_four(rank):
    assert initial_bounds(rank, "rank_neutral", 0.0) == initial_bounds(4, "reference", 0.0)
    assert initial_bounds(rank, "reference", 0.0)["hidden"] == pytest.approx(1 / math.sqrt(rank))


@settings(max_examples=20, deadline=None)
@given(cases())
def test_signatures_state_the_shapes_that_the_functions_return(case):
    part = slice_of(case.of_block(), ORDERS[case.order], case.position, case.scaling)
    jaxtyped(typechecker=beartype)(low_rank_pair)(part, case.position.heads_on_output)
    blocks = jaxtyped(typechecker=beartype)(rows_per_head)(part.blocks, len(part.blocks))
    across = jaxtyped(typechecker=beartype)(wide)(blocks, part.head_dim)
    assert across.shape == (len(blocks) * len(part.head_dim), blocks.shape[1])


def test_signatures_refuse_other_shapes():
    with pytest.raises(TypeCheckError):
        jaxtyped(typechecker=beartype)(rows_per_head)(torch.ones(4), 2)
    three = Slice(torch.ones(6, 2), torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(TypeCheckError):
        jaxtyped(typechecker=beartype)(low_rank_pair)(three._replace(hidden=torch.ones(6)), True)
