"""The count of PEFT's TinyLoRA. No torch. Source: arXiv:2602.04118; PEFT 0.21.2, `peft/tuners/tinylora`."""

from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import Geometry


def tinylora_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return u numbers a group: `weight_tying` 0 makes every matrix a group, 1 all of them one."""
    matrices = len(geometry.module_shapes(projections))
    return int(config["u"]) * max(1, round(matrices * (1.0 - float(config["weight_tying"]))))  # halves go to even
