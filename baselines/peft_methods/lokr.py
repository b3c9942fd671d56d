"""The sizes that PEFT gives LoKr's Kronecker factors, and the count that follows. No torch.

Source: Yeh et al. 2024, arXiv:2309.14859 (LyCORIS); PEFT 0.21.2, `peft/tuners/lokr/layer.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import Geometry

USUAL_RANK = 8  # conf/config.yaml's: it is run as it is, also where a lower one makes the same adapter


def nearest_to_square(size: int) -> tuple[int, int]:
    """Return the two factors of a size that are nearest to each other, the smaller first."""
    smaller = max(factor for factor in range(1, math.isqrt(size) + 1) if size % factor == 0)
    return smaller, size // smaller


def matrix_parameters(inputs: int, outputs: int, rank: int) -> int:
    """Return the count of one update: a small full factor, and a large one, low-rank if that is smaller."""
    (left_out, right_out), (left_in, right_in) = nearest_to_square(outputs), nearest_to_square(inputs)
    low_rank = rank < max(right_out, right_in) / 2
    return left_out * left_in + (rank * (right_out + right_in) if low_rank else right_out * right_in)


def whole_from(inputs: int, outputs: int) -> int:
    """Return the lowest rank from which on an update's large factor is whole, so that the rank changes nothing."""
    return math.ceil(max(nearest_to_square(outputs)[1], nearest_to_square(inputs)[1]) / 2)


def lokr_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return the count of adapter weights for `decompose_factor: -1` without `decompose_both`, as in lokr.yaml.

    Raises ValueError for a rank above the usual one that makes the same adapter as a lower one.
    """
    shapes, rank = geometry.module_shapes(projections), int(config["r"])
    last = max(whole_from(*shape) for shape in shapes)
    if rank > max(last, USUAL_RANK):
        raise ValueError(
            f"from rank {last} on, both factors of every update are whole here, and rank {rank} would be the same "
            f"adapter under another name: rank={max(last, USUAL_RANK)} at most."
        )
    return sum(matrix_parameters(*shape, rank) for shape in shapes)
