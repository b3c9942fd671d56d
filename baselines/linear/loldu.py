"""LoLDU, the first pivots of a weight's LDU decomposition trained anew (Shi et al. 2024, arXiv:2410.13618).

    W = P L D U,  update = (s z - s0 d) between left = (P L)[:, :r] and right = U[:r],  d = the first r entries of D

z starts at d and the scalar s at s0 = alpha / r, so the first update is zero: the released code (SKDDJ/LoLDU), from
which this was read, subtracts the same from the frozen weight. The pivots are those of the first r rows of P^T W, in no
order of size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.frozen_spectrum import FrozenSpectrum
from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner


@dataclass
class LolduConfig(LinearTunerConfig):
    """LoLDU's settings. Raises ValueError for a rank below 1."""

    r: int = 768  # pivots
    alpha: float = 1.0  # the trained scale starts at alpha / r

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "LOLDU"
        self.require_at_least(1, "r")


def pivots(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return left (outputs, rank), the first pivots (rank) and right (rank, inputs), rows with 1 on the diagonal.

    In float32 at least. Raises ValueError for a rank above the smaller side and for a pivot of zero.
    """
    if rank > min(weight.shape):
        raise ValueError(f"LoLDU's rank {rank} must be at most {min(weight.shape)}, the number of pivots.")
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    permutation, lower, upper = torch.linalg.lu(wide)
    diagonal = upper.diagonal()[:rank]
    if not diagonal.is_meta and not diagonal.all():
        raise ValueError(f"one of the first {rank} pivots of the weight is 0: choose a lower rank or other targets.")
    return (permutation @ lower[:, :rank]).contiguous(), diagonal.clone(), upper[:rank] / diagonal[:, None]


class Pivots(FrozenSpectrum):
    """The pivots of one adapter at one layer; `spectrum` holds the frozen ones."""

    def __init__(self, weight: Tensor, config: LolduConfig) -> None:
        super().__init__(*pivots(weight, config.r))
        self.pivots = nn.Parameter(self.get_buffer("spectrum").clone())
        self.start = config.alpha / config.r
        self.scale = nn.Parameter(torch.tensor([self.start]))

    def change(self) -> Tensor:
        """Return s z - s0 d (r)."""
        return self.scale * self.pivots - self.start * self.get_buffer("spectrum").to(self.pivots.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        hidden = functional.linear(x, self.get_buffer("right").to(x.dtype)) * self.change()
        return functional.linear(hidden, self.get_buffer("left").to(x.dtype))

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        change = self.change()
        return self.get_buffer("left").to(change.dtype) * change @ self.get_buffer("right").to(change.dtype)


class LolduLayer(BranchLayer):
    """A linear layer with LoLDU updates."""

    adapter_layer_names = ("loldu_branch",)
    make_branch = Pivots


class LolduModel(LinearTuner):
    """A model with LoLDU adapters."""

    prefix = "loldu_"
    tuner_layer_cls = LolduLayer


register_tuner("loldu", LolduConfig, LolduModel, LolduModel.prefix)
