"""How SODA splits a layer's inputs into the sizes of small rotations, and the count that follows. No torch.

Source: the released code (phymhan/SODA-Diffusion), which lists four widths; the rule for all others is ours.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import Geometry

RELEASED_FACTORS: dict[int, tuple[int, ...]] = {
    640: (8, 8, 10),
    768: (6, 8, 16),
    1280: (4, 16, 20),
    2048: (4, 8, 64),
}


def rotation_sizes(inputs: int, chosen: Mapping[str, Sequence[int]] | None = None) -> tuple[int, ...]:
    """Return the sizes of the rotations whose Kronecker product acts on `inputs` features.

    A chosen list (by the number of inputs, as text) comes first, then the released one. For any other width: the three
    rising sizes of the smallest sum of squares, without ones. Raises ValueError for a list with the wrong product.
    """
    if chosen and str(inputs) in chosen:
        sizes = tuple(chosen[str(inputs)])
        if math.prod(sizes) != inputs:
            raise ValueError(f"SODA factors['{inputs}'] must multiply to {inputs}, got {list(sizes)}.")
        return sizes
    return RELEASED_FACTORS.get(inputs) or _cheapest(inputs)


def _cheapest(inputs: int) -> tuple[int, ...]:
    triples = [
        (first, second, inputs // (first * second))
        for first in _divisors(inputs)
        for second in _divisors(inputs // first)
        if first <= second <= inputs // (first * second)
    ]
    best = min(triples, key=lambda sizes: sum(size**2 for size in sizes))
    return tuple(size for size in best if size > 1)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def rotation_entries(size: int, rotation: str) -> int:
    """Return how many numbers a rotation of `size` is trained by: all on the manifold, else those of a skew matrix."""
    return size**2 if rotation == "stiefel" else size * (size - 1) // 2


def parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return SODA's count of adapter weights: rotations of the inputs and one shift for each spectral value."""
    total = 0
    for inputs, outputs in geometry.module_shapes(projections):
        sizes = rotation_sizes(inputs, config.get("factors"))
        total += sum(rotation_entries(size, config["rotation"]) for size in sizes) + min(inputs, outputs)
    return total
