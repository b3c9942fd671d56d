"""The sizes that PEFT gives LoKr's Kronecker factors, and the count that follows. No torch.

Source: Yeh et al. 2024, arXiv:2309.14859 (LyCORIS); PEFT 0.21.2, `peft/tuners/lokr/layer.py`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import Geometry


def nearest_to_square(size: int) -> tuple[int, int]:
    """Return the two factors of a size that are nearest to each other, the smaller first."""
    smaller = max(factor for factor in range(1, math.isqrt(size) + 1) if size % factor == 0)
    return smaller, size // smaller


def matrix_parameters(inputs: int, outputs: int, rank: int) -> int:
    """Return the count of one update: a small full factor, and a large one, low-rank if that is smaller."""
    (left_out, right_out), (left_in, right_in) = nearest_to_square(outputs), nearest_to_square(inputs)
    low_rank = rank < max(right_out, right_in) / 2
    return left_out * left_in + (rank * (right_out + right_in) if low_rank else right_out * right_in)


def lokr_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return the count of adapter weights for `decompose_factor: -1` without `decompose_both`, as in lokr.yaml."""
    return geometry.layers * sum(matrix_parameters(*geometry.shape(role), int(config["r"])) for role in projections)
