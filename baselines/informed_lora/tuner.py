"""LoRA that starts from data or from the weight, as a PEFT tuner; importing this module registers it.

    update = (alpha / r) * (up down - up_start down_start)

PEFT 0.21.2 takes the start out of the base weight instead, so that its checkpoints are read right only by who repeats
that: LoRA-GA's logits are off by up to 2.7 without a word, CorDA's loading raises, and PiSSA with a randomised
decomposition needs the same random numbers again. Here the start is saved beside the
factors, the base weight stays as it is, and switching the adapter off gives the base model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.informed_lora import starts
from baselines.informed_lora.statistics import input_moments, mean_gradients
from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from baselines.training_rows import DataDrivenStart
from lorta.peft_extension.registry import register_tuner

STARTS = ("lora_ga", "corda_largest", "corda_smallest", "eva", "pissa_niter")


@dataclass
class InformedLoraConfig(LinearTunerConfig):
    """Settings of all four methods. Raises ValueError for a rank or a number of rows below 1, an unknown start."""

    r: int = 8
    alpha: float = 16.0  # the update is multiplied by alpha / r
    start: str = "lora_ga"
    rows: int = 256  # of the training split that the start is made from
    gamma: float = 16.0  # lora_ga: a larger one starts with a smaller second factor
    power_iterations: int = 16  # pissa_niter: of the randomised decomposition
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "INFORMED_LORA"
        self.require_at_least(1, "r", "rows")
        self.require_one_of(STARTS, "start")


class StartedPair(nn.Module):
    """The factors of one adapter at one layer and where they started; LoRA's own start until `begin`."""

    def __init__(self, weight: Tensor, config: InformedLoraConfig) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        bound = inputs**-0.5  # kaiming_uniform_ with a = sqrt(5)
        self.down = nn.Parameter(torch.empty(config.r, inputs).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(outputs, config.r))
        self.register_buffer("start_down", self.down.detach().clone())
        self.register_buffer("start_up", self.up.detach().clone())
        self.dropout = nn.Dropout(config.dropout)
        self.config, self.scaling = config, config.alpha / config.r

    @torch.no_grad()
    def begin(self, down: Tensor, up: Tensor) -> None:
        """Start, in place, from down (r, inputs) and up (outputs, r)."""
        for name, value in (("down", down), ("up", up)):
            self.get_parameter(name).copy_(value)
            self.get_buffer(f"start_{name}").copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs): exactly 0 at the start."""
        x = self.dropout(x)
        down, up = (self.get_buffer(f"start_{name}").to(x.dtype) for name in ("down", "up"))
        now = functional.linear(functional.linear(x, self.down), self.up)
        return self.scaling * (now - functional.linear(functional.linear(x, down), up))

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        down, up = (self.get_buffer(f"start_{name}").to(self.down.dtype) for name in ("down", "up"))
        return self.scaling * (self.up @ self.down - up @ down)


class InformedLoraLayer(BranchLayer):
    """A linear layer with updates that started from data."""

    adapter_layer_names = ("informed_lora_branch",)
    make_branch = StartedPair


class InformedLoraModel(LinearTuner):
    """A model with LoRA-GA, CorDA, EVA or PiSSA adapters."""

    prefix = "informed_lora_"
    tuner_layer_cls = InformedLoraLayer


class InformedStart(DataDrivenStart):
    """Starts all active adapters from rows of the training split."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config, int(config["rows"]))

    def start(self, model: Any, batches: Iterator[dict[str, Tensor]]) -> None:
        """Begin every layer's factors from its gradient, from its inputs, or from its weight alone."""
        layers = [module for module in model.modules() if isinstance(module, InformedLoraLayer)]
        bases = [cast(nn.Linear, layer.get_base_layer()) for layer in layers]
        statistics: Any = [None] * len(layers)
        if self.config["start"] != "pissa_niter":
            gradients = self.config["start"] == "lora_ga"
            statistics = (mean_gradients if gradients else input_moments)(model, bases, batches)
        for layer, seen in zip(layers, statistics, strict=True):
            for adapter in layer.active_adapters:
                branch: StartedPair = layer.branch(adapter)
                branch.begin(*first_factors(branch.config, layer.get_base_weight(), seen))


def first_factors(config: InformedLoraConfig, weight: Tensor, seen: Any) -> tuple[Tensor, Tensor]:
    """Return down and up of one layer from its weight (outputs, inputs) and its gradient or its inputs' moments.

    PiSSA asks for the weight alone.
    """
    if config.start == "lora_ga":
        return starts.lora_ga(seen, config.r, config.gamma)
    scaling = config.alpha / config.r
    if config.start == "pissa_niter":
        return starts.pissa(weight, config.r, scaling, config.power_iterations)
    moment, mean = seen
    if config.start == "eva":
        return starts.eva(moment, mean, len(weight), config.r)
    largest = config.start == "corda_largest"
    return starts.corda(weight.to(moment), moment, config.r, scaling, largest)


register_tuner("informed_lora", InformedLoraConfig, InformedLoraModel, InformedLoraModel.prefix)
