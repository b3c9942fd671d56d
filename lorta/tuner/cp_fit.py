"""The nearest LoRTA to a LoRA: CP factors of a tensor whose (layer, matrix) slices are given as thin products.

Alternating least squares, one factor at a time, each the exact minimiser of the squared distance in float64. The
tensor has hidden * head_dim * heads * layers * matrices entries and is never built: its products with the factors,
and its norm, come from the thin matrices. Keys and values of grouped heads see means of rows of C_H
(`factors.rows_per_head`), which the update of C_H takes into account.

Shape suffixes: L = layers, I = hidden, H = heads, J = head_dim, P = rank of the slices, R = rank of the fit.
Source: Kolda and Bader 2009, Tensor Decompositions and Applications, section 3.4; the extrapolation is Harshman's 1970,
Foundations of the PARAFAC procedure, as Rajih, Comon and Harshman 2008 describe it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lorta.tuner.factors import rows_per_head

MODES = ("hidden", "head_dim", "heads", "layers", "matrices")
NEGLIGIBLE = 3e-8  # a residual that float64 cannot tell from zero: it is a root of a difference of squares


@dataclass(frozen=True)
class SlicedTensor:
    """The updates of q, k, v, o or some of them as one tensor: slice (l, m) is hidden[m][l] times wide[m][l]."""

    hidden: Sequence[Float[Tensor, "layers hidden _"]]  # one entry for each matrix, and so below
    wide: Sequence[Float[Tensor, "layers _ head_dim _"]]  # the second axis: heads, or fewer for keys and values
    heads: int

    def sizes(self) -> dict[str, int]:
        """Return the length of every mode."""
        layers, hidden, _ = self.hidden[0].shape
        sizes = (hidden, self.wide[0].shape[2], self.heads, layers, len(self.hidden))
        return dict(zip(MODES, sizes, strict=True))

    def squared_norms(self) -> Float[Tensor, "layers matrices"]:
        """Return the squared Frobenius norm of every slice."""
        columns = [
            ((U.mT @ U) * torch.einsum("lhjp,lhjq->lpq", V, V)).sum(dim=(1, 2))
            for U, V in zip(self.hidden, self.wide, strict=True)
        ]
        return torch.stack(columns, dim=1)


class Fit(NamedTuple):
    """Factors whose CP tensor is near a LoRA's, and how near."""

    factors: dict[str, Float[Tensor, "_ rank"]]  # float64, by their names in `MODES`
    residual: float  # norm of the difference over the norm of the LoRA's tensor; below 1e-7 it is rounding
    slices: Float[Tensor, "layers matrices"]  # the same for each slice; nan where the LoRA changes nothing
    sweeps: int  # of the start that came nearest


def cp_fit(
    tensor: SlicedTensor, rank: int, restarts: int = 4, seed: int = 0, sweeps: int = 1000, tolerance: float = 1e-5
) -> Fit:
    """Return the best of several fits: the first starts from singular vectors, the others from seeded random factors.

    A start ends after `sweeps`, or when ten sweeps lower the residual by less than `tolerance`, relatively. Raises
    ValueError for a number below 1 and for a tensor that is zero.
    """
    for name, value in (("rank", rank), ("restarts", restarts), ("sweeps", sweeps)):
        if value < 1:
            raise ValueError(f"the fit's {name} must be at least 1, got {value}.")
    norms = tensor.squared_norms()
    if not norms.sum() > 0:
        raise ValueError("the LoRA changes nothing (its lora_B are zero), so there is nothing to fit.")
    generator = torch.Generator().manual_seed(seed)
    best: Fit | None = None
    for start in range(restarts):
        initial = random_start(tensor, rank, generator)
        if start == 0:
            initial = singular_start(tensor, initial)
        fit = _alternate(tensor, norms, initial, sweeps, tolerance)
        if best is None or fit.residual < best.residual:
            best = fit
        if best.residual < NEGLIGIBLE:
            break
    assert best is not None
    return best._replace(factors=_balanced(best.factors))


def random_start(tensor: SlicedTensor, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return normally distributed factors."""
    return {
        name: torch.randn(size, rank, dtype=torch.float64, generator=generator) for name, size in tensor.sizes().items()
    }


def singular_start(tensor: SlicedTensor, fill: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the leading left singular vectors of every unfolding, with columns of `fill` where a mode has too few.

    Grouped keys and values count as if each query head had its copy.
    """
    started: dict[str, Tensor] = {}
    for name, reduced in reduced_unfoldings(tensor).items():
        square = reduced.shape[0] == reduced.shape[1]  # symmetric then
        vectors = torch.linalg.eigh(reduced)[1].flip(1) if square else torch.linalg.svd(reduced, full_matrices=False)[0]
        vectors = vectors[:, : fill[name].shape[1]]
        started[name] = torch.cat([vectors, fill[name][:, vectors.shape[1] :]], dim=1)
    return started


def reduced_unfoldings(tensor: SlicedTensor) -> dict[str, Tensor]:
    """Return, for every mode, a matrix with the left singular vectors of the unfolding along it, in their order.

    It is the Gram matrix of the unfolding's rows, or has fewer columns than rows.
    """
    wides = [V.repeat_interleave(tensor.heads // V.shape[1], dim=1) for V in tensor.wide]
    columns: dict[str, list[Tensor]] = {name: [] for name in MODES}
    for U, V in zip(tensor.hidden, wides, strict=True):  # an isometry on the right, the Q of a QR, does not change them
        right = torch.linalg.qr(V.flatten(1, 2), mode="r").R
        columns["hidden"].append((U @ right.mT).transpose(0, 1).flatten(1))
        left = torch.linalg.qr(U, mode="r").R
        scaled = V @ left.mT[:, None]
        columns["head_dim"].append(scaled.permute(2, 0, 1, 3).flatten(1))
        columns["heads"].append(scaled.transpose(0, 1).flatten(1))
    reduced = {name: _squared_up(torch.cat(parts, dim=1)) for name, parts in columns.items() if parts}
    pairs = [(a, b) for a in zip(tensor.hidden, wides, strict=True) for b in zip(tensor.hidden, wides, strict=True)]
    inner = torch.stack([_inner_products(*a, *b) for a, b in pairs])  # of any two slices
    inner = inner.view(len(wides), len(wides), *inner.shape[1:])
    reduced["layers"] = inner.diagonal(dim1=0, dim2=1).sum(-1)
    reduced["matrices"] = inner.diagonal(dim1=2, dim2=3).sum(-1)
    return reduced


def _squared_up(columns: Tensor) -> Tensor:
    return columns if columns.shape[1] < columns.shape[0] else columns @ columns.T


def _inner_products(U: Tensor, V: Tensor, other_U: Tensor, other_V: Tensor) -> Float[Tensor, "layers layers"]:
    """Return the inner product of every slice of one matrix with every slice of another."""
    hidden = torch.einsum("lip,kiq->lkpq", U, other_U)
    return (hidden * torch.einsum("lhjp,khjq->lkpq", V, other_V)).sum(dim=(2, 3))


def _alternate(tensor: SlicedTensor, norms: Tensor, factors: dict[str, Tensor], sweeps: int, tolerance: float) -> Fit:
    """Run sweeps from one start, each followed by a step further in its direction when that lowers the residual."""
    slices, earlier = torch.full_like(norms, math.inf), math.inf
    sweep = 0
    for sweep in range(1, sweeps + 1):
        before = factors
        factors, slices = _sweep(tensor, norms, factors)
        if sweep > 3:
            step = sweep ** (1 / 3) - 1
            further = {name: factor + step * (factor - before[name]) for name, factor in factors.items()}
            tried = _squared_distances(tensor, norms, further)
            if tried.sum() < slices.sum():
                factors, slices = further, tried
        residual = _relative(slices, norms)
        if sweep % 10 == 0:
            if residual < NEGLIGIBLE or earlier - residual < tolerance * residual:
                break
            earlier = residual
    each = torch.where(norms > 0, (slices.clamp(min=0) / norms).sqrt(), math.nan)
    return Fit(factors, _relative(slices, norms), each, sweep)


def _relative(squared: Tensor, norms: Tensor) -> float:
    return math.sqrt(max(squared.sum().item(), 0.0) / norms.sum().item())


def _sweep(tensor: SlicedTensor, norms: Tensor, factors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Return every factor replaced by the minimiser given the others, and the squared distances of the slices."""
    f = _balanced(factors)
    weights = f["layers"][:, None] * f["matrices"]  # (L, M, R)
    _update_wide_side(tensor, f, weights)

    rows, spans = _head_rows(tensor, f["heads"])
    sides = _wide_products(tensor, rows, f["head_dim"])
    parts = [torch.einsum("lip,lpr->ir", U, sides[m] * weights[:, m, None]) for m, U in enumerate(tensor.hidden)]
    joint = torch.einsum("lmr,lms->mrs", weights, weights)
    f["hidden"] = _solve(torch.stack(parts).sum(0), _gram(f["head_dim"]) * (joint * spans).sum(0))

    inner = _inner(tensor, f["hidden"], sides)
    spans = spans * _gram(f["hidden"]) * _gram(f["head_dim"])
    outer = f["matrices"][:, :, None] * f["matrices"][:, None, :]
    f["layers"] = _solve((inner * f["matrices"]).sum(1), (spans * outer).sum(0))
    right, gram = (inner * f["layers"][:, None]).sum(0), _gram(f["layers"])
    f["matrices"] = torch.cat([_solve(right[m : m + 1], span * gram) for m, span in enumerate(spans)])
    return f, _distances(norms, inner, spans, f)


def _update_wide_side(tensor: SlicedTensor, f: dict[str, Tensor], weights: Tensor) -> None:
    """Replace head_dim, then heads; both need the slices contracted with all other factors, (H, J, R) a matrix."""
    joint = torch.einsum("lmr,lms->mrs", weights, weights) * _gram(f["hidden"])
    through = [(U.mT @ f["hidden"]) * weights[:, m, None] for m, U in enumerate(tensor.hidden)]
    reduced = [torch.einsum("lhjp,lpr->hjr", V, part) for V, part in zip(tensor.wide, through, strict=True)]
    rows, spans = _head_rows(tensor, f["heads"])
    parts = [torch.einsum("hjr,hr->jr", X, row) for X, row in zip(reduced, rows, strict=True)]
    f["head_dim"] = _solve(torch.stack(parts).sum(0), (joint * spans).sum(0))
    targets = [torch.einsum("hjr,jr->hr", X, f["head_dim"]) for X in reduced]
    f["heads"] = _solve_heads(tensor, targets, joint * _gram(f["head_dim"]))


def _squared_distances(tensor: SlicedTensor, norms: Tensor, f: dict[str, Tensor]) -> Tensor:
    rows, spans = _head_rows(tensor, f["heads"])
    inner = _inner(tensor, f["hidden"], _wide_products(tensor, rows, f["head_dim"]))
    return _distances(norms, inner, spans * _gram(f["hidden"]) * _gram(f["head_dim"]), f)


def _distances(norms: Tensor, inner: Tensor, spans: Tensor, f: dict[str, Tensor]) -> Float[Tensor, "layers matrices"]:
    """Return ||T||^2 - 2 <T, fit> + ||fit||^2 of every slice."""
    weights = f["layers"][:, None] * f["matrices"]
    return norms - 2 * (inner * weights).sum(-1) + torch.einsum("lmr,mrs,lms->lm", weights, spans, weights)


def _inner(tensor: SlicedTensor, hidden: Tensor, sides: list[Tensor]) -> Float[Tensor, "layers matrices rank"]:
    """Return the inner products of each slice with each component's hidden x (heads x head_dim) matrix."""
    columns = [((U.mT @ hidden) * side).sum(1) for U, side in zip(tensor.hidden, sides, strict=True)]
    return torch.stack(columns, dim=1)


def _wide_products(tensor: SlicedTensor, rows: list[Tensor], head_dim: Tensor) -> list[Tensor]:
    """Return, of each matrix, its wide sides times (heads x head_dim) of each component: (layers, P, rank)."""
    return [torch.einsum("lhjp,hjr->lpr", V, row[:, None] * head_dim) for V, row in zip(tensor.wide, rows, strict=True)]


def _head_rows(tensor: SlicedTensor, heads: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the rows of C_H that each matrix sees, and their inner products: (matrices, rank, rank)."""
    rows = [rows_per_head(heads, V.shape[1]) for V in tensor.wide]
    return rows, torch.stack([_gram(row) for row in rows])


def _solve_heads(tensor: SlicedTensor, targets: list[Tensor], grams: Tensor) -> Float[Tensor, "heads rank"]:
    """Return C_H; matrices with grouped heads see only its means, the others also the deviations from them."""
    full = [m for m, V in enumerate(tensor.wide) if V.shape[1] == tensor.heads]
    grouped = [m for m in range(len(targets)) if m not in full]
    size, rank = tensor.heads, grams.shape[-1]
    target = sum((targets[m] for m in full), torch.zeros(size, rank, dtype=torch.float64))
    gram = grams[full].sum(0)
    if not grouped:
        return _solve(target, gram)
    groups = targets[grouped[0]].shape[0]
    share = size // groups
    mean = rows_per_head(target, groups)
    means = _solve(
        mean + sum(targets[m] for m in grouped) / share, gram + grams[grouped].sum(0) / share
    ).repeat_interleave(share, dim=0)
    deviations = target - mean.repeat_interleave(share, dim=0)
    return means + (_solve(deviations, gram) if full else 0)


def _gram(factor: Tensor) -> Float[Tensor, "rank rank"]:
    return factor.T @ factor


def _solve(target: Tensor, gram: Tensor) -> Tensor:
    """Return the x of least norm with x @ gram = target, where the least squares have more than one."""
    return target @ torch.linalg.pinv(gram, hermitian=True)


def _balanced(factors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same components with columns of equal norm in every mode."""
    norms = {name: factor.norm(dim=0) for name, factor in factors.items()}
    size = torch.stack(list(norms.values())).prod(0) ** (1 / len(norms))
    return {name: factor * (size / norms[name].clamp(min=1e-300)) for name, factor in factors.items()}
