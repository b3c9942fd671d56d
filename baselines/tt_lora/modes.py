"""How TT-LoRA splits the two sides of a matrix into tensor modes, and the count that follows. No torch.

Source: the authors' code (lanl/TTLoRAMoE), which lists the query and value matrices of five models.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from baselines.loretta.shapes import core_shapes, split_side
from lorta.geometry import Geometry

Modes = tuple[tuple[int, ...], tuple[int, ...]]

RELEASED_MODES: dict[tuple[int, int], Modes] = {  # (inputs, outputs) -> modes of the inputs and of the outputs
    (768, 768): ((64, 4, 3), (3, 4, 64)),  # RoBERTa-base
    (2048, 2048): ((16, 8, 4, 4), (4, 4, 8, 16)),  # Llama-3.2-1B
    (2048, 512): ((16, 16, 4, 2), (2, 16, 16)),
    (3072, 3072): ((16, 4, 4, 3, 2, 2), (2, 2, 3, 4, 4, 16)),  # Llama-3.2-3B
    (3072, 1024): ((16, 4, 4, 3, 2, 2), (2, 2, 4, 4, 16)),
    (4096, 4096): ((16, 4, 4, 4, 2, 2), (2, 2, 4, 4, 4, 16)),  # Llama-3.1-8B
    (4096, 1024): ((16, 4, 4, 4, 2, 2), (2, 2, 4, 4, 16)),
    (8192, 8192): ((16, 4, 4, 4, 2, 2, 2), (2, 2, 2, 4, 4, 4, 16)),  # Llama-3.1-70B
    (8192, 1024): ((16, 4, 4, 4, 2, 2, 2), (2, 2, 4, 4, 16)),
}
LARGEST_MODE = 12  # of the rule for all other sizes, which is ours


def modes(inputs: int, outputs: int, largest: int | None) -> Modes:
    """Return the modes of the inputs and of the outputs of a matrix.

    The released lists where there is one and `largest` is None. Otherwise each side becomes the fewest factors of at
    most `largest` (a larger prime stays whole), rising on the input side and falling on the output side.
    """
    if largest is None and (inputs, outputs) in RELEASED_MODES:
        return RELEASED_MODES[inputs, outputs]
    before, behind = (split_side(side, largest or LARGEST_MODE) for side in (inputs, outputs))
    return before, behind[::-1]


def parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return TT-LoRA's count of adapter weights: one train a matrix."""
    rank, largest, total = int(config["r"]), config.get("largest_mode"), 0
    for inputs, outputs in geometry.module_shapes(projections):
        before, behind = modes(inputs, outputs, largest)
        total += sum(math.prod(core) for core in core_shapes(before + behind, rank))
    return total
