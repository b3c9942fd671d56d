"""LoRA-XS, r^2 trained numbers between two frozen singular frames of the weight (Balazy et al. 2024, arXiv:2405.17604).

    update = (alpha / r) * left @ core @ diag(values) @ right

left (outputs, r), values (r) and right (r, inputs) are the largest singular triples of the frozen weight, core (r, r)
is trained. Read from the released code (MohammadrezaBanaei/LoRA-XS), whose core starts at N(0, 1e-5^2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.singular_frames import singular_frames
from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner


@dataclass
class LoraXsConfig(LinearTunerConfig):
    """LoRA-XS's settings. Raises ValueError for a rank below 1."""

    r: int = 16
    alpha: float = 16.0  # the update is multiplied by alpha / r
    core_std: float = 1e-5  # of the core's start; 0 starts at the base model exactly
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "LORA_XS"
        self.require_at_least(1, "r")


class SingularCore(nn.Module):
    """The core of one adapter at one layer, and its frames, which are saved with it.

    Raises ValueError for a rank above the smaller side of the layer.
    """

    def __init__(self, weight: Tensor, config: LoraXsConfig) -> None:
        super().__init__()
        left, values, right = singular_frames(weight, config.r)
        self.register_buffer("down", values[:, None] * right)
        self.register_buffer("up", left)
        self.core = nn.Parameter(config.core_std * torch.randn(config.r, config.r))
        self.dropout = nn.Dropout(config.dropout)
        self.scaling = config.alpha / config.r

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        hidden = functional.linear(self.dropout(x), self.get_buffer("down").to(x.dtype))
        return functional.linear(hidden, self.get_buffer("up").to(x.dtype) @ (self.scaling * self.core))

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        up, down = (self.get_buffer(name).to(self.core.dtype) for name in ("up", "down"))
        return self.scaling * up @ self.core @ down


class LoraXsLayer(BranchLayer):
    """A linear layer with LoRA-XS updates."""

    adapter_layer_names = ("lora_xs_branch",)
    make_branch = SingularCore


class LoraXsModel(LinearTuner):
    """A model with LoRA-XS adapters."""

    prefix = "lora_xs_"
    tuner_layer_cls = LoraXsLayer


register_tuner("lora_xs", LoraXsConfig, LoraXsModel, LoraXsModel.prefix)
