"""MELoRA, a stack of n mini LoRAs on disjoint slices (Ren et al. 2024, arXiv:2402.17263, section 3.2).

The update is (alpha / r) blockdiag(B_1 A_1, ..., B_n A_n), with A_i (r, inputs / n) and B_i (outputs / n, r): slice i
of the input feeds slice i of the output only. Its rank is up to n r, its size that of one LoRA of rank r for any n.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner

# Shape suffixes: N = mini LoRAs, R = mini rank, I = inputs / n, O = outputs / n


@dataclass
class MeloraConfig(LinearTunerConfig):
    """MELoRA's settings. Raises ValueError for a rank or a number of mini LoRAs below 1."""

    r: int = 8  # of every mini LoRA
    n: int = 2  # mini LoRAs side by side; must divide inputs and outputs of all targets
    alpha: float = 16.0  # the update is multiplied by alpha / r, with the mini rank as in the released code
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "MELORA"
        self.require_at_least(1, "r", "n")


class MiniLoras(nn.Module):
    """All mini LoRAs of one adapter at one layer. Raises ValueError when n does not divide a side of the layer.

    A_i starts Kaiming-uniform over its own inputs / n inputs, B_i at zero, as in the released code.
    """

    def __init__(self, weight: Tensor, config: MeloraConfig) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        if inputs % config.n or outputs % config.n:
            raise ValueError(
                f"MELoRA's n = {config.n} must divide {inputs} inputs and {outputs} outputs: choose another n."
            )
        bound = 1 / math.sqrt(inputs // config.n)  # kaiming_uniform_ with a = sqrt(5)
        self.down = nn.Parameter(torch.empty(config.n, config.r, inputs // config.n).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(config.n, outputs // config.n, config.r))
        self.dropout = nn.Dropout(config.dropout)
        self.scaling = config.alpha / config.r

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs), slice by slice."""
        slices_NI = self.dropout(x).unflatten(-1, (self.down.shape[0], -1))
        hidden_NR = torch.einsum("...ni,nri->...nr", slices_NI, self.down)
        return self.scaling * torch.einsum("...nr,nor->...no", hidden_NR, self.up).flatten(-2)

    def delta_weight(self) -> Tensor:
        """Return the block-diagonal update (outputs, inputs)."""
        return self.scaling * torch.block_diag(*(self.up @ self.down))


class MeloraLayer(BranchLayer):
    """A linear layer with MELoRA updates."""

    adapter_layer_names = ("melora_branch",)
    make_branch = MiniLoras


class MeloraModel(LinearTuner):
    """A model with MELoRA adapters."""

    prefix = "melora_"
    tuner_layer_cls = MeloraLayer


register_tuner("melora", MeloraConfig, MeloraModel, MeloraModel.prefix)
