"""SVFT, trained entries between all singular vectors of a weight (Lingam et al. 2024, arXiv:2405.19597).

    update = left @ M @ right,  the singular vectors of the frozen weight left (outputs, k) and right (k, inputs)

M (k, k) has trained entries in a band around its diagonal, of bandwidth 1 in the paper's "plain" form and d + 1 in its
"banded" form of d off-diagonals. Read from the released code (VijayLingam95/SVFT), which multiplies M by the sigmoid of
one more trained number, its gate, and starts M at Kaiming-normal, so not at the base model. Its random and top-k
supports are not here.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.frozen_spectrum import FrozenSpectrum
from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner

STARTS = ("released", "zero")


@dataclass
class SvftConfig(LinearTunerConfig):
    """SVFT's settings. Raises ValueError for a bandwidth below 1 and an unknown start."""

    bandwidth: int = 1  # w: the diagonal and w - 1 diagonals on each side
    init: str = "released"  # of the entries: N(0, 2 / their number); or zero

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "SVFT"
        self.require_at_least(1, "bandwidth")
        self.require_one_of(STARTS, "init")


class BandedCore(FrozenSpectrum):
    """The band of one adapter at one layer. Raises ValueError for a bandwidth above the smaller side.

    A band beside the diagonal depends on the signs of the singular vectors, so then they are saved as well.
    """

    def __init__(self, weight: Tensor, config: SvftConfig) -> None:
        wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        super().__init__(*torch.linalg.svd(wide, full_matrices=False))
        size = len(cast(Tensor, self.spectrum))
        if config.bandwidth > size:
            raise ValueError(f"SVFT's bandwidth {config.bandwidth} must be at most {size}, the number of diagonals.")
        if config.bandwidth > 1:
            for name in ("left", "right"):
                self.register_buffer(name, self.get_buffer(name), persistent=True)
        self.offsets = [0] + [sign * step for step in range(1, config.bandwidth) for sign in (1, -1)]
        self.lengths = [size - abs(offset) for offset in self.offsets]
        number = sum(self.lengths)
        spread = math.sqrt(2 / number) if config.init == "released" else 0.0
        self.entries = nn.Parameter(spread * torch.randn(number))
        self.gate = nn.Parameter(torch.zeros(1))

    def diagonals(self) -> tuple[Tensor, ...]:
        """Return the diagonals of M, gate included: the main one, then those above and below in turn."""
        return (self.entries * self.gate.sigmoid()).split(self.lengths)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        hidden = functional.linear(x, self.get_buffer("right").to(x.dtype))
        main, *others = self.diagonals()
        turned = hidden * main
        for offset, diagonal in zip(self.offsets[1:], others, strict=True):
            if offset > 0:  # row i takes column i + offset
                turned = turned + functional.pad(hidden[..., offset:] * diagonal, (0, offset))
            else:
                turned = turned + functional.pad(hidden[..., :offset] * diagonal, (-offset, 0))
        return functional.linear(turned, self.get_buffer("left").to(x.dtype))

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        pairs = zip(self.diagonals(), self.offsets, strict=True)
        core = torch.stack([torch.diag(diagonal, offset) for diagonal, offset in pairs]).sum(dim=0)
        return self.get_buffer("left").to(core.dtype) @ core @ self.get_buffer("right").to(core.dtype)


class SvftLayer(BranchLayer):
    """A linear layer with SVFT updates."""

    adapter_layer_names = ("svft_branch",)
    make_branch = BandedCore


class SvftModel(LinearTuner):
    """A model with SVFT adapters."""

    prefix = "svft_"
    tuner_layer_cls = SvftLayer


register_tuner("svft", SvftConfig, SvftModel, SvftModel.prefix)
