"""CP factors of LoRTA's joint update tensor, as pure functions of tensors.

One tensor holds the updates of every adapted projection, a sum of `rank` products over five modes:

    T[i, j, h, l, m] = sum over r of  A[i, r] * B[j, r] * C_H[h, r] * C_L[l, r] * C_M[m, r]

with A = hidden, B = head_dim, C_H = heads, C_L = layers and C_M = matrices below, rank * (d + d/H + H + L + M) numbers.
A projection's update is one (l, m) slice of it. Every head shares A, so the slice has rank r and is never built in
training: x goes through A and through a (heads * head_dim, rank) matrix, as in LoRA.

The lower orders are ablations: some modes joined into one, or a tensor of its own for every matrix or layer. `ORDERS`
says which; everything below is driven by it.

Source: Hounie et al. 2024, arXiv:2410.04060; bounds and orders as its released code computes them.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

HeadSide = Literal["natural", "input", "output"]
Init = Literal["reference", "rank_neutral"]
Scaling = Literal["alpha/r", "alpha/sqrt(r)", "alpha"]
OrderName = Literal["5_way", "4_way_per_matrix", "4_way_per_layer", "3_way_joint", "3_way_per_matrix"]
Factors = Mapping[str, Tensor]  # name -> (*sizes of its axes, rank), see `factor_axes`; one kind of block's

NEUTRAL_RANK = 4  # the paper's rank for RoBERTa-base on GLUE: at rank 4 both distributions are the released code's


class Order(NamedTuple):
    """How the five axes of all updates become factors, beside hidden (A) and head_dim (B)."""

    modes: tuple[tuple[str, ...], ...]  # axes of each further factor; several: one joint mode
    separate: str | None = None  # an axis with a tensor of its own at each index: all factors get it as first axis


ORDERS: dict[str, Order] = {
    "5_way": Order((("heads",), ("layers",), ("matrices",))),
    "4_way_per_matrix": Order((("heads",), ("layers",)), separate="matrices"),
    "4_way_per_layer": Order((("heads",), ("matrices",)), separate="layers"),
    "3_way_joint": Order((("matrices", "layers", "heads"),)),
    "3_way_per_matrix": Order((("layers", "heads"),), separate="matrices"),
}
OWN = ("head_dim", "heads", "slices")  # factors whose size is the head side's; the feed-forward block has its own
FACTORS = ("hidden", "head_dim", "heads", "layers", "matrices", "slices", *(f"feedforward_{name}" for name in OWN))


@cache
def factor_axes(order: Order) -> dict[str, tuple[str, ...]]:
    """Return the axes of each factor of an order, without the last one, rank."""
    first = (order.separate,) if order.separate else ()
    axes = {"hidden": (*first, "hidden"), "head_dim": (*first, "head_dim")}
    return axes | {mode[0] if len(mode) == 1 else "slices": first + mode for mode in order.modes}


class Position(NamedTuple):
    """Where the update of one module sits in the tensor."""

    layer_row: int
    matrix_rows: tuple[int, ...]  # one for each projection in the module: three in a fused q, k, v
    own_rows: tuple[int, ...]  # the same, counted among the projections of attention or of the feed-forward block only
    heads: tuple[int, ...]  # heads of each projection: fewer than C_H has rows for grouped keys and values
    heads_on_output: bool  # True: the heads divide the outputs; False: they divide the inputs
    feedforward: bool = False  # the factors in `OWN` are then the feed-forward block's
    by_head: bool = False  # in a fused module: q, k, v of one head, then of the next, as in GPT-NeoX


class Slice(NamedTuple):
    """The factors of one module's update; its rank is larger than the tensor's where fused projections share none."""

    hidden: Float[Tensor, "hidden rank"]
    head_dim: Float[Tensor, "head_dim rank"]
    blocks: Float[Tensor, "blocks rank"]  # a row for each head of each projection, scaling included


def initial_bounds(rank: int, init: Init, init_scale: float) -> dict[str, float]:
    """Return per factor the b of the initial distribution U(-b, b); 0 for head_dim, so that the update starts at 0.

    `reference` is the released code: Kaiming bounds whose fan is the rank, so that entries shrink as the rank grows.
    `rank_neutral` takes those bounds at rank 4 for every rank: components are alike at each rank and alpha / r
    averages them, so that one Adam step changes the outputs by the same amount at each rank (with `reference` the
    change falls like r**-2). A larger `init_scale` means smaller entries, as in the released code.
    """
    fan = rank if init == "reference" else NEUTRAL_RANK
    mode_bound = math.sqrt(6.0 / (fan * (1.0 + 5.0 * init_scale**2)))
    return dict.fromkeys(FACTORS, mode_bound) | {
        "hidden": 1.0 / math.sqrt(fan),
        "head_dim": 0.0,
        "feedforward_head_dim": 0.0,
    }


def scaling_factor(scaling: Scaling, alpha: float, rank: int) -> float:
    """Return what the update is multiplied by: alpha / r (LoRA), alpha / sqrt(r) (rsLoRA) or alpha (the CP tensor)."""
    return alpha / {"alpha/r": rank, "alpha/sqrt(r)": math.sqrt(rank), "alpha": 1.0}[scaling]


def rows_per_head(rows: Float[Tensor, "*of heads rank"], wanted: int) -> Float[Tensor, "*of wanted rank"]:
    """Return one row per head, averaged over the query heads that share a key and value head.

    The mean is what remains of the update of an ungrouped model when the copies of a shared head must stay equal
    (their orthogonal projection on equal copies). The rows stay as they are when no heads are shared.
    """
    if wanted == rows.shape[-2]:
        return rows
    return rows.reshape(*rows.shape[:-2], wanted, -1, rows.shape[-1]).mean(dim=-2)


def slice_of(factors: Factors, order: Order, position: Position, scaling: float) -> Slice:
    """Return the factors of one module's update, scaling included."""
    rows = _per_projection(_row_products(factors, order, position, scaling), position)
    if len(rows) == 1:
        blocks = rows[0]
    elif order.separate == "matrices":  # each projection has components of its own: they stand side by side
        blocks = cast(Tensor, torch.block_diag(*rows))  # pyright: ignore[reportUnknownMemberType]
    else:
        blocks = torch.cat(rows)
    if position.by_head:
        blocks = blocks.reshape(len(rows), -1, blocks.shape[1]).transpose(0, 1).flatten(0, 1)
    return Slice(_thin("hidden", factors, order, position), _thin("head_dim", factors, order, position), blocks)


def joint_slices(
    factors: Factors, order: Order, position: Position, scaling: float
) -> tuple[Float[Tensor, "hidden rank"], list[Float[Tensor, "_ rank"]]]:
    """Return hidden, which the projections of a position must share, and the wide matrix of each of them."""
    hidden, head_dim = _thin("hidden", factors, order, position), _thin("head_dim", factors, order, position)
    product = _row_products(factors, order, position, scaling)
    if all(heads == product.shape[1] for heads in position.heads):
        return hidden, list(wide(product, head_dim).unbind(0))
    return hidden, [wide(rows, head_dim) for rows in _per_projection(product, position)]


def wide(
    blocks: Float[Tensor, "*of blocks rank"], head_dim: Float[Tensor, "head_dim rank"]
) -> Float[Tensor, "*of blocks*head_dim rank"]:
    """Return the thin matrix on the side that the heads divide, head index major as in transformers' attention."""
    return (blocks.unsqueeze(-2) * head_dim).flatten(-3, -2)


def low_rank_pair(
    part: Slice, heads_on_output: bool
) -> tuple[Float[Tensor, "inputs rank"], Float[Tensor, "outputs rank"]]:
    """Return (down, up) of a module's update, which is `up @ down.T` in the layout of a Linear weight."""
    across = wide(part.blocks, part.head_dim)
    return (part.hidden, across) if heads_on_output else (across, part.hidden)


def _row_products(
    factors: Factors, order: Order, position: Position, scaling: float
) -> Float[Tensor, "projections heads rank"]:
    """Return the product of the rows of all further factors at this position, scaling included."""
    product: Tensor | float = scaling
    for name, axes in reversed(factor_axes(order).items()):  # the smallest first: heads come last
        if name not in ("hidden", "head_dim"):
            rows = _at(factors[name], axes, position, own=name in OWN)
            product = product * (rows.unsqueeze(1) if "matrices" in axes and "heads" not in axes else rows)
    assert isinstance(product, Tensor)  # some factor of each order has the axis matrices, some has heads
    return product


def _per_projection(product: Float[Tensor, "projections heads rank"], position: Position) -> list[Tensor]:
    return [rows_per_head(rows, heads) for rows, heads in zip(product.unbind(0), position.heads, strict=True)]


def _thin(name: str, factors: Factors, order: Order, position: Position) -> Float[Tensor, "size rank"]:
    """Return hidden or head_dim of a module: the columns of its projections side by side when each has its own."""
    factor = _at(factors[name], (order.separate,) if order.separate else (), position, own=name in OWN)
    return factor.transpose(0, 1).flatten(1) if order.separate == "matrices" else factor


def _at(factor: Tensor, axes: tuple[str, ...], position: Position, own: bool) -> Tensor:
    """Take a layer's row and the rows of a module's projections."""
    rows = position.own_rows if own else position.matrix_rows
    dim = 0
    for axis in axes:
        if axis == "layers":
            factor = factor.select(dim, position.layer_row)
            continue
        if axis == "matrices":
            factor = take(factor, rows, dim)
        dim += 1
    return factor


def take(factor: Tensor, rows: Sequence[int], dim: int = 0) -> Tensor:
    """Take rows of a factor, as a view where they follow one another."""
    if tuple(rows) != tuple(range(rows[0], rows[0] + len(rows))):
        return factor.index_select(dim, torch.tensor(rows, device=factor.device))
    return factor.narrow(dim, rows[0], len(rows)) if len(rows) < factor.shape[dim] else factor
