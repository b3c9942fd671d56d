"""How LoRETTA factorises a matrix into tensor-train dimensions, and the parameter counts that follow. No torch.

Source: the released package (yifanycc/loretta 0.1.3). The paper's Table 10 lists other orders for some sizes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import Geometry

# Released lists, by (smaller, larger) side; the same list serves both directions of a matrix. Nine of the 62 there
# do not multiply to their sides (those of 32 but two, that of (64, 2304), the head of 5120); the rule splits these.
RELEASED_SHAPES: dict[tuple[int, int], tuple[int, ...]] = {
    (5, 768): (5, 8, 12, 8),
    (5, 1024): (4, 8, 5, 8, 4),
    (5, 1280): (4, 8, 5, 8, 5),
    (5, 1536): (4, 8, 5, 8, 6),
    (5, 1600): (5, 8, 5, 8, 5),
    (5, 2304): (5, 8, 8, 4, 9),
    (5, 4096): (16, 16, 5, 4, 4),
    (5, 5120): (5, 8, 10, 8, 8),
    (5, 8192): (4, 16, 16, 10, 4),
    (8, 768): (8, 8, 12, 8),
    (8, 1024): (4, 8, 8, 8, 4),
    (8, 1280): (4, 8, 8, 8, 5),
    (8, 1536): (4, 8, 8, 8, 6),
    (8, 1600): (5, 8, 8, 8, 5),
    (8, 2304): (8, 8, 8, 4, 9),
    (8, 4096): (16, 16, 8, 4, 4),
    (8, 5120): (8, 8, 10, 8, 8),
    (8, 8192): (4, 16, 16, 16, 4),
    (16, 768): (8, 16, 12, 8),
    (16, 1024): (4, 8, 16, 8, 4),
    (16, 1280): (4, 8, 16, 8, 5),
    (16, 1536): (4, 8, 16, 8, 6),
    (16, 1600): (5, 8, 16, 8, 5),
    (16, 2304): (8, 8, 8, 8, 9),
    (16, 4096): (16, 16, 16, 4, 4),
    (16, 5120): (8, 16, 10, 8, 8),
    (16, 8192): (4, 16, 16, 16, 8),
    (32, 768): (4, 8, 12, 8, 8),
    (32, 2304): (8, 8, 16, 8, 9),
    (64, 768): (8, 8, 12, 8, 8),
    (64, 1024): (4, 8, 8, 8, 8, 4),
    (64, 1280): (4, 8, 8, 8, 8, 5),
    (64, 1536): (4, 8, 8, 8, 8, 6),
    (64, 1600): (5, 8, 8, 8, 8, 5),
    (64, 4096): (16, 16, 16, 4, 4, 4),
    (64, 5120): (5, 8, 8, 16, 8, 8),
    (64, 8192): (4, 16, 16, 16, 8, 4),
    (128, 768): (8, 16, 12, 8, 8),
    (128, 1024): (4, 8, 16, 8, 8, 4),
    (128, 1280): (4, 8, 16, 8, 8, 5),
    (128, 1536): (4, 8, 16, 8, 8, 6),
    (128, 1600): (5, 8, 16, 8, 8, 5),
    (128, 4096): (16, 16, 16, 8, 4, 4),
    (128, 5120): (5, 8, 16, 16, 8, 8),
    (128, 8192): (4, 16, 16, 16, 16, 4),
    (768, 768): (8, 8, 12, 12, 8, 8),
    (1024, 1024): (4, 8, 8, 16, 8, 8, 4),
    (1280, 1280): (4, 4, 8, 8, 8, 8, 5, 5),
    (1536, 1536): (4, 4, 8, 8, 8, 8, 6, 6),
    (1600, 1600): (5, 5, 8, 8, 8, 8, 5, 5),
    (2304, 2304): (4, 4, 8, 8, 8, 8, 9, 9),
    (4096, 4096): (4, 4, 16, 16, 16, 16, 4, 4),
    (8192, 8192): (4, 4, 16, 16, 16, 16, 8, 8),
}
LARGEST_FACTOR = 12  # of the released lists for width 768, which the rule below reproduces


def shape_key(inputs: int, outputs: int) -> str:
    """Return the name of a matrix size in `LorettaConfig.shapes`."""
    return f"{inputs}x{outputs}"


def tensor_shape(inputs: int, outputs: int, chosen: Mapping[str, Sequence[int]] | None = None) -> tuple[int, ...]:
    """Return the dimensions of the tensor that an (inputs, outputs) matrix becomes, read row by row.

    A chosen list (by `shape_key`) comes first, then the released one. For any other size the rule is: each side becomes
    the fewest factors of at most 12 (a larger prime stays whole), those of the smallest sum, rising on the input side
    and falling on the output side. Raises ValueError for a chosen list with the wrong product.
    """
    key = shape_key(inputs, outputs)
    if chosen and key in chosen:
        shape = tuple(chosen[key])
        if math.prod(shape) != inputs * outputs:
            raise ValueError(f"LoRETTA shapes['{key}'] must multiply to {inputs * outputs}, got {list(shape)}.")
        return shape
    released = RELEASED_SHAPES.get((min(inputs, outputs), max(inputs, outputs)))
    return released or split_side(inputs) + split_side(outputs)[::-1]


def split_side(size: int, largest: int = LARGEST_FACTOR) -> tuple[int, ...]:
    """Return the fewest rising factors of one side of a matrix, those of the smallest sum.

    Each is at most `largest`, or the size's largest prime factor where that is more.
    """
    largest = max(largest, _largest_prime(size))
    return min(factorisations(size, 2, largest), key=lambda factors: (len(factors), sum(factors)))


def factorisations(size: int, smallest: int, largest: int) -> list[tuple[int, ...]]:
    """Return all rising tuples of factors within the two bounds whose product is `size`."""
    shapes = [(size,)] if smallest <= size <= largest else []
    for factor in range(smallest, min(math.isqrt(size), largest) + 1):
        if size % factor == 0:
            shapes += [(factor, *rest) for rest in factorisations(size // factor, factor, largest)]
    return shapes or ([()] if size == 1 else [])


def _largest_prime(size: int) -> int:
    for factor in range(2, math.isqrt(size) + 1):
        if size % factor == 0:
            return max(factor, _largest_prime(size // factor))
    return size


def core_shapes(shape: Sequence[int], tensor_rank: int) -> list[tuple[int, int, int]]:
    """Return (left rank, dimension, right rank) of every core; the outer ranks are 1, all others `tensor_rank`."""
    ranks = [1, *[tensor_rank] * (len(shape) - 1), 1]
    return [(ranks[i], size, ranks[i + 1]) for i, size in enumerate(shape)]


def train_parameters(inputs: int, outputs: int, config: Mapping[str, Any]) -> int:
    """Return the number of entries in the cores of one matrix."""
    shape = tensor_shape(inputs, outputs, config.get("shapes"))
    return sum(math.prod(core) for core in core_shapes(shape, int(config["tensor_rank"])))


def rep_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return LoRETTA_rep's count of adapter weights: two trains a matrix, no bias."""
    rank = int(config["r"])
    sides = geometry.module_shapes(projections)
    return sum(train_parameters(i, rank, config) + train_parameters(rank, o, config) for i, o in sides)


def adp_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return LoRETTA_adp's count of adapter weights: two trains with a bias each behind, or before, every matrix."""
    width, sides = int(config["bottleneck"]), []
    for role in geometry.roles(projections):
        names = {path.rpartition(".")[2] for path in geometry.architecture.paths(role)}
        before = bool(names & set(config.get("before") or ()))
        sides += [shape[0] if before else shape[1] for shape in geometry.module_shapes([role])]
    trains = [train_parameters(side, width, config) + train_parameters(width, side, config) for side in sides]
    return sum(trains) + sum(width + side for side in sides)
