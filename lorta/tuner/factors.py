"""CP factors of LoRTA's joint update tensor, as pure functions of tensors.

One tensor holds the updates of every adapted projection, a sum of `rank` products over five modes:

    T[i, j, h, l, m] = sum over r of  A[i, r] * B[j, r] * C_H[h, r] * C_L[l, r] * C_M[m, r]

with A = hidden, B = head_dim, C_H = heads, C_L = layers and C_M = matrices below, rank * (d + d/H + H + L + M) numbers.
A projection's update is one (l, m) slice of it. Every head shares A, so the slice has rank r and is never built in
training: x goes through A and through a (heads * head_dim, rank) matrix, as in LoRA.

Source: Hounie et al. 2024, arXiv:2410.04060; bounds and orders as its released code computes them.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

HeadSide = Literal["natural", "input", "output"]
Init = Literal["reference", "rank_neutral"]

MODES = ("hidden", "head_dim", "heads", "layers", "matrices")
NEUTRAL_RANK = 4  # the paper's rank for RoBERTa-base on GLUE: at rank 4 both distributions are the released code's


class Position(NamedTuple):
    """Where one projection sits in the tensor."""

    layer_row: int
    matrix_row: int
    heads: int  # heads side by side on the projection's head side: fewer than C_H has rows for grouped keys and values
    heads_on_output: bool  # True: the heads divide the outputs; False: they divide the inputs


class Factors(NamedTuple):
    """The five factor matrices of one adapter, rows by mode and one column per component."""

    hidden: Float[Tensor, "hidden rank"]
    head_dim: Float[Tensor, "head_dim rank"]
    heads: Float[Tensor, "heads rank"]
    layers: Float[Tensor, "layers rank"]
    matrices: Float[Tensor, "matrices rank"]


def initial_bounds(rank: int, init: Init, init_scale: float) -> dict[str, float]:
    """Return per mode the b of the initial distribution U(-b, b); 0 for head_dim, so that the update starts at 0.

    `reference` is the released code: Kaiming bounds whose fan is the rank, so that entries shrink as the rank grows.
    `rank_neutral` takes those bounds at rank 4 for every rank: components are alike at each rank and alpha / r
    averages them, so that one Adam step changes the outputs by the same amount at each rank (with `reference` the
    change falls like r**-2). A larger `init_scale` means smaller entries, as in the released code.
    """
    fan = rank if init == "reference" else NEUTRAL_RANK
    mode_bound = math.sqrt(6.0 / (fan * (1.0 + 5.0 * init_scale**2)))
    return {
        "hidden": 1.0 / math.sqrt(fan),
        "head_dim": 0.0,
        "heads": mode_bound,
        "layers": mode_bound,
        "matrices": mode_bound,
    }


def rows_per_head(heads: Float[Tensor, "heads rank"], wanted: int) -> Float[Tensor, "wanted rank"]:
    """Return one row of C_H per head, averaged over the query heads that share a key and value head.

    The mean is what remains of the update of an ungrouped model when the copies of a shared head must stay equal
    (their orthogonal projection on equal copies). It is C_H itself when no heads are shared.
    """
    if wanted == heads.shape[0]:
        return heads
    return heads.reshape(wanted, -1, heads.shape[1]).mean(dim=1)


def low_rank_pair(
    factors: Factors, position: Position, scaling: float
) -> tuple[Float[Tensor, "inputs rank"], Float[Tensor, "outputs rank"]]:
    """Return (down, up) of one projection: its update is `up @ down.T`, and up carries the scaling or down does.

    The head index is the major one of the side that the heads divide, as in the attention of transformers.
    """
    component = scaling * factors.layers[position.layer_row] * factors.matrices[position.matrix_row]
    head_rows = rows_per_head(factors.heads, position.heads) * component
    wide = (head_rows[:, None, :] * factors.head_dim[None, :, :]).flatten(0, 1)
    return (factors.hidden, wide) if position.heads_on_output else (wide, factors.hidden)


def factored_update(
    x: Float[Tensor, "*batch inputs"], down: Float[Tensor, "inputs rank"], up: Float[Tensor, "outputs rank"]
) -> Float[Tensor, "*batch outputs"]:
    """Return the update applied to x, at the cost of LoRA's two thin products."""
    return functional.linear(functional.linear(x, down.T), up)


def delta_weight(factors: Factors, position: Position, scaling: float) -> Float[Tensor, "outputs inputs"]:
    """Return one projection's dense update, scaling included, in the layout of a Linear weight. For merging only."""
    down, up = low_rank_pair(factors, position, scaling)
    return torch.matmul(up, down.T)
