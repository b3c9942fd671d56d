"""How QuanTA splits a width into axes, and the count that follows. No torch.

Source: the released code (quanta-fine-tuning/quanta), whose scripts give one list; the rule for all others is ours.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from baselines.loretta.shapes import factorisations
from lorta.geometry import Geometry

RELEASED_AXES: dict[tuple[int, int], tuple[int, ...]] = {(4096, 4): (16, 8, 8, 4)}  # LLaMA-2-7B


def axes_of(width: int, number: int, chosen: Mapping[str, Sequence[int]] | None = None) -> tuple[int, ...]:
    """Return the sizes of the axes that `width` features are read as.

    A chosen list (by the width, as text) comes first, then the released one. For any other width: as many falling
    factors as `number`, those of the fewest trained numbers. Raises ValueError for a width without so many factors.
    """
    if chosen and str(width) in chosen:
        return tuple(chosen[str(width)])
    if (width, number) in RELEASED_AXES:
        return RELEASED_AXES[width, number]
    lists = [factors[::-1] for factors in factorisations(width, 2, width) if len(factors) == number]
    if not lists:
        raise ValueError(f"QuanTA cannot read {width} features as {number} axes: choose fewer.")
    return min(lists, key=entries)


def entries(axes: Sequence[int]) -> int:
    """Return the trained numbers of one matrix: a square matrix on each pair of axes."""
    return sum((first * second) ** 2 for first, second in combinations(axes, 2))


def parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return QuanTA's count of adapter weights."""
    widths = [max(shape) for shape in geometry.module_shapes(projections)]
    return sum(entries(axes_of(width, int(config["axes"]), config.get("sizes"))) for width in widths)
