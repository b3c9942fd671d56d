"""TT-LoRA as a PEFT tuner; importing this module registers it. Source: Anjum et al. 2024, arXiv:2408.01008.

The update of a matrix is alpha times one tensor train: cores (left bond, mode, right bond) whose modes multiply to the
inputs and then to the outputs, all inner bonds r. Its rank is at most r, the bond in the middle. Read from the authors'
code (lanl/TTLoRAMoE), where the first mode runs fastest over the input features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from baselines.loretta.shapes import core_shapes
from baselines.loretta.tensor_train import contract
from baselines.tt_lora.modes import modes
from lorta.peft_extension.registry import register_tuner

STARTS = ("released", "zero_last_core")


@dataclass
class TtLoraConfig(LinearTunerConfig):
    """TT-LoRA's settings. Raises ValueError for a bond or a mode that makes no train, and for an unknown start."""

    r: int = 5  # all inner bonds
    alpha: float = 16.0  # the update is multiplied by alpha, not by alpha / r
    largest_mode: int | None = None  # None: the released modes where there are some
    init: str = "released"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "TT_LORA"
        self.require_at_least(1, "r")
        if self.largest_mode is not None:
            self.require_at_least(2, "largest_mode")
        self.require_one_of(STARTS, "init")


class TensorTrainUpdate(nn.Module):
    """The tensor train of one adapter at one layer.

    Every core starts random with the Frobenius norm 1, as released, so that the update is small but not zero;
    `zero_last_core` makes it zero.
    """

    def __init__(self, weight: Tensor, config: TtLoraConfig) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.before, self.behind = modes(inputs, outputs, config.largest_mode)
        cores = [torch.rand(size) * 2 - 1 for size in core_shapes(self.before + self.behind, config.r)]
        cores = [core / core.norm() for core in cores]
        if config.init == "zero_last_core":
            cores[-1] = torch.zeros_like(cores[-1])
        self.cores = nn.ParameterList(nn.Parameter(core) for core in cores)
        self.alpha = config.alpha

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Return (inputs, r) and (r, outputs), whose product is the transposed update but for alpha."""
        count = len(self.before)
        cores = list(self.cores)
        down = contract(cores[:count]).view(*self.before, -1)
        fastest_first = (*reversed(range(count)), count)
        up = contract(cores[count:])
        return down.permute(fastest_first).reshape(-1, up.shape[0]), up.view(up.shape[0], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        down, up = self.matrices()
        return functional.linear(x @ down, self.alpha * up.T)

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        down, up = self.matrices()
        return self.alpha * (down @ up).T


class TtLoraLayer(BranchLayer):
    """A linear layer with TT-LoRA updates."""

    adapter_layer_names = ("tt_lora_branch",)
    make_branch = TensorTrainUpdate


class TtLoraModel(LinearTuner):
    """A model with TT-LoRA adapters."""

    prefix = "tt_lora_"
    tuner_layer_cls = TtLoraLayer


register_tuner("tt_lora", TtLoraConfig, TtLoraModel, TtLoraModel.prefix)
