"""The count of (IA)^3, Liu et al. 2022, arXiv:2205.05638. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import Geometry


def ia3_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return the count of scales: one for each input of `down`, one for each output of every other module."""
    inner = [role for role in projections if role == "down"]  # scaled before it is projected down
    others = [role for role in projections if role != "down"]
    count = sum(outputs for _, outputs in geometry.module_shapes(others))
    return count + sum(inputs for inputs, _ in geometry.module_shapes(inner))
