"""NOLA, LoRA whose factors are mixtures of frozen random matrices (Koohpayegani et al. 2024, arXiv:2310.02556).

    update = (alpha / r) * B A,  A = A0 + sum_i a_i A_i,  B = sum_j b_j B_j

with k numbers a and k numbers b trained, all from 0. A_i (r, inputs) and B_j (outputs, r) are U(-1, 1) / sqrt(k), A0 is
LoRA's start. Read from the released code (UCDvision/NOLA), which draws other matrices for every layer and draws them
again in each forward and backward pass, on the device and from torch's global generator. Here all layers of one width
share one set of matrices, drawn once on the CPU, so that they can be kept and are the same on every device.
"""

import math
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner


@dataclass
class NolaConfig(LinearTunerConfig):
    """NOLA's settings. Raises ValueError for a rank or a number of matrices below 1."""

    r: int = 8
    k: int = 1024  # random matrices of each factor
    alpha: float = 8.0  # the update is multiplied by alpha / r
    seed: int = 0  # of the random matrices
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "NOLA"
        self.require_at_least(1, "r", "k")


class Bases:
    """The random matrices of one side ("down" or "up") and width (k, r * width) on one device, and A's start."""

    def __init__(self, config: NolaConfig, side: str, width: int, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(2 * config.seed + (side == "up"))
        entries = config.r * width
        self.matrices = torch.empty(config.k, entries).uniform_(-1, 1, generator=generator)
        self.matrices = (self.matrices / math.sqrt(config.k)).to(device, dtype)
        bound = 1 / math.sqrt(width)  # kaiming_uniform_ with a = sqrt(5)
        self.start = torch.empty(entries).uniform_(-bound, bound, generator=generator).to(device, dtype)


KEPT: WeakValueDictionary[tuple[object, ...], Bases] = WeakValueDictionary()  # as long as a layer holds them


class Mixture(nn.Module):
    """The coefficients of one adapter at one layer."""

    def __init__(self, weight: Tensor, config: NolaConfig) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.config = config
        self.down = nn.Parameter(torch.zeros(config.k))
        self.up = nn.Parameter(torch.zeros(config.k))
        self.dropout = nn.Dropout(config.dropout)
        self.held: dict[str, Bases] = {}

    def bases(self, side: str, width: int) -> Bases:
        """Return the random matrices of a side, on the device of the coefficients."""
        config, device, dtype = self.config, self.down.device, self.down.dtype
        key = (config.seed, config.k, config.r, side, width, device, dtype)
        if key not in KEPT:
            KEPT[key] = self.held[side] = Bases(config, side, width, device, dtype)
        self.held[side] = KEPT[key]
        return self.held[side]

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A (r, inputs) and B (outputs, r), scaling included."""
        wide, tall = self.bases("down", self.inputs), self.bases("up", self.outputs)
        down = wide.start + self.down @ wide.matrices
        up = self.config.alpha / self.config.r * (self.up @ tall.matrices)
        return down.view(self.config.r, self.inputs), up.view(self.outputs, self.config.r)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        down, up = self.factors()
        return functional.linear(functional.linear(self.dropout(x), down), up)

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        down, up = self.factors()
        return up @ down


class NolaLayer(BranchLayer):
    """A linear layer with NOLA updates."""

    adapter_layer_names = ("nola_branch",)
    make_branch = Mixture


class NolaModel(LinearTuner):
    """A model with NOLA adapters."""

    prefix = "nola_"
    tuner_layer_cls = NolaLayer


register_tuner("nola", NolaConfig, NolaModel, NolaModel.prefix)
