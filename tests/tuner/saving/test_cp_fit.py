from itertools import pairwise

import pytest
import tensorly
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import parafac
from torch.testing import assert_close

from lorta.tuner.cp_fit import MODES, SlicedTensor, cp_fit, random_start, singular_start

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def draw(size, generator):
    return torch.randn(*size, dtype=torch.float64, generator=generator)


def sliced(sizes, heads_of=None, rank=2, seed=0):
    """Random thin products; `heads_of`: the heads of each matrix, fewer where they are grouped."""
    hidden, head_dim, heads, layers, matrices = sizes
    generator = torch.Generator().manual_seed(seed)
    heads_of = heads_of or [heads] * matrices
    return SlicedTensor(
        hidden=[draw((layers, hidden, rank), generator) for _ in range(matrices)],
        wide=[draw((layers, own, head_dim, rank), generator) for own in heads_of],
        heads=heads,
    )


def dense(tensor):
    """The slices of each matrix, (layers, hidden, heads, head_dim), one entry at a time built from the products."""
    return [torch.einsum("lip,lhjp->lihj", U, V) for U, V in zip(tensor.hidden, tensor.wide, strict=True)]


def rebuilt(factors, tensor):
    """A naive sum over components, heads averaged over the query heads of a group."""
    slices = []
    for m, target in enumerate(dense(tensor)):
        grouped = factors["heads"].reshape(target.shape[2], -1, factors["heads"].shape[1]).mean(1)
        terms = (
            torch.einsum("l,i,h,j->lihj", layers, hidden, heads, head_dim) * matrices[m]
            for hidden, head_dim, heads, layers, matrices in zip(
                factors["hidden"].T,
                factors["head_dim"].T,
                grouped.T,
                factors["layers"].T,
                factors["matrices"].T,
                strict=True,
            )
        )
        slices.append(sum(terms))
    return slices


def distances(factors, tensor):
    pairs = zip(rebuilt(factors, tensor), dense(tensor), strict=True)
    return torch.stack([((found - wanted) ** 2).sum(dim=(1, 2, 3)) for found, wanted in pairs], dim=1)


sizes = st.tuples(st.integers(2, 7), st.integers(1, 4), st.sampled_from([2, 4]), st.integers(1, 3), st.integers(1, 4))


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, rank=st.integers(1, 4), thin=st.integers(1, 3), grouped=st.booleans(), seed=st.integers(0, 99))
def test_the_reported_residuals_are_those_of_the_dense_tensor(sizes, rank, thin, grouped, seed):
    heads = [sizes[2] // 2 if grouped and m in (1, 2) else sizes[2] for m in range(sizes[4])]
    tensor = sliced(sizes, heads, thin, seed)
    fit = cp_fit(tensor, rank, restarts=2, sweeps=7, seed=seed)
    norms = torch.stack([(part**2).sum(dim=(1, 2, 3)) for part in dense(tensor)], dim=1)
    assert_close(tensor.squared_norms(), norms, **EXACT)
    found = distances(fit.factors, tensor)
    assert fit.residual == pytest.approx((found.sum() / norms.sum()).sqrt().item(), abs=1e-6)
    assert_close(fit.slices, (found / norms).sqrt(), rtol=0, atol=1e-6)
    assert {name: len(factor) for name, factor in fit.factors.items()} == dict(zip(MODES, sizes, strict=True))


@pytest.mark.parametrize("grouped", [(), (1, 2), (0, 1, 2)])  # matrices whose heads are grouped, some or all
def test_a_finished_fit_is_a_stationary_point_of_the_dense_distance(grouped):
    sizes = (7, 3, 4, 2, 3)
    tensor = sliced(sizes, [2 if m in grouped else 4 for m in range(3)], seed=1)
    fit = cp_fit(tensor, 2, restarts=1, tolerance=1e-10)
    leaves = {name: factor.clone().requires_grad_() for name, factor in fit.factors.items()}
    distances(leaves, tensor).sum().backward()
    scale = tensor.squared_norms().sum() / min(factor.norm() for factor in fit.factors.values())
    assert fit.residual > 0.1
    assert max(leaf.grad.norm() for leaf in leaves.values()) < 1e-3 * scale


@settings(max_examples=20, deadline=None)
@given(sizes=sizes, rank=st.integers(1, 3), seed=st.integers(0, 99))
def test_more_sweeps_never_end_further_away(sizes, rank, seed):
    tensor = sliced(sizes, seed=seed)
    residuals = [cp_fit(tensor, rank, restarts=1, sweeps=sweeps, seed=seed).residual for sweeps in (1, 2, 5, 9)]
    assert all(later <= earlier + 1e-7 for earlier, later in pairwise(residuals))


@settings(max_examples=20, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 99))
def test_the_first_start_spans_the_leading_singular_vectors_of_each_unfolding(sizes, seed):
    tensor = sliced(sizes, seed=seed)
    start = singular_start(tensor, random_start(tensor, 2, torch.Generator().manual_seed(seed)))
    whole = torch.stack(dense(tensor), dim=-1).permute(1, 3, 2, 0, 4)  # hidden, head_dim, heads, layers, matrices
    for mode, name in enumerate(MODES):
        unfolded = whole.movedim(mode, 0).flatten(1)
        vectors = start[name][:, : min(2, len(unfolded))]
        assert_close(vectors.T @ vectors, torch.eye(vectors.shape[1], dtype=torch.float64), **EXACT)
        leading = torch.linalg.svdvals(unfolded)[: vectors.shape[1]]
        assert (vectors.T @ unfolded).norm() == pytest.approx(leading.norm().item())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", [2, 4])
def test_fits_are_as_near_as_those_of_tensorly(seed, rank):
    sizes = (12, 4, 3, 3, 2)
    tensor = sliced(sizes, seed=seed)
    whole = torch.stack(dense(tensor), dim=-1).permute(1, 3, 2, 0, 4).contiguous()
    tensorly.set_backend("pytorch")
    try:
        theirs = []
        for state in range(4):
            found = parafac(whole, rank, init="random", random_state=state, n_iter_max=500, tol=1e-9)
            theirs.append(((tensorly.cp_to_tensor(found) - whole).norm() / whole.norm()).item())
    finally:
        tensorly.set_backend("numpy")
    assert cp_fit(tensor, rank).residual <= 1.02 * min(theirs)


@pytest.mark.parametrize("grouped", [(), (1, 2)])
@pytest.mark.parametrize(("rank", "seed"), [(1, 0), (3, 1), (6, 2)])
def test_a_tensor_of_the_rank_is_found_again(grouped, rank, seed):
    sizes = (20, 6, 4, 3, 4)
    generator = torch.Generator().manual_seed(seed)
    wanted = {name: draw((size, rank), generator) for name, size in zip(MODES, sizes, strict=True)}
    columns = []
    for m in range(4):
        rows = wanted["heads"].reshape(2 if m in grouped else 4, -1, rank).mean(1)
        scale = wanted["layers"] * wanted["matrices"][m]
        columns.append(rows[None, :, None] * wanted["head_dim"] * scale[:, None, None])
    tensor = SlicedTensor([wanted["hidden"].expand(3, -1, -1)] * 4, columns, heads=4)
    fit = cp_fit(tensor, rank)
    assert fit.residual < 1e-4
    assert fit.slices.max() < 1e-3


def test_the_same_seed_gives_the_same_factors_and_columns_of_equal_norm():
    tensor = sliced((8, 3, 2, 2, 2), rank=3)
    first, second = (cp_fit(tensor, 2, restarts=3, seed=5) for _ in range(2))
    assert_close(first.factors, second.factors, rtol=0, atol=0)
    norms = torch.stack([factor.norm(dim=0) for factor in first.factors.values()])
    assert_close(norms, norms[:1].expand_as(norms))


def test_more_restarts_are_never_worse():
    tensor = sliced((8, 3, 2, 3, 3), rank=3)
    residuals = [cp_fit(tensor, 3, restarts=restarts).residual for restarts in (1, 2, 5)]
    assert residuals == sorted(residuals, reverse=True)


def test_slices_that_a_lora_leaves_alone_have_no_residual_and_an_empty_lora_no_fit():
    tensor = sliced((6, 3, 2, 2, 2))
    tensor.wide[0][1] = 0
    fit = cp_fit(tensor, 2)
    assert fit.slices.isnan().tolist() == [[False, False], [True, False]]
    for wide in tensor.wide:
        wide.zero_()
    with pytest.raises(ValueError, match="changes nothing"):
        cp_fit(tensor, 2)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rank": 1, "restarts": 0}, {"rank": 1, "sweeps": 0}])
def test_numbers_below_one_are_refused(wrong):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        cp_fit(sliced((4, 2, 2, 1, 1)), **wrong)


def test_starts_have_the_sizes_of_the_modes():
    sizes = (5, 3, 4, 2, 3)
    start = random_start(sliced(sizes), 7, torch.Generator().manual_seed(0))
    assert {name: tuple(factor.shape) for name, factor in start.items()} == {
        name: (size, 7) for name, size in zip(MODES, sizes, strict=True)
    }
