"""QuanTA as a PEFT tuner; importing this module registers it. Source: Chen et al. 2024, arXiv:2406.00132.

    update = T(gates) - T(gates at the start)

Features are read as several axes; T applies a square matrix, a gate, to each pair of axes in turn, the last pair first.
The update is zero at the start and of full rank later. A matrix of other inputs than outputs acts on the larger number:
inputs are filled with zeros, outputs cut off. Read from the released code (quanta-fine-tuning/quanta), which adds the
frozen T to the base weight; here that weight stays as it is and both are evaluated. The released code also trains all
normalisation layers, uncounted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from baselines.quanta.axes import axes_of
from lorta.peft_extension.registry import register_tuner


@dataclass
class QuantaConfig(LinearTunerConfig):
    """QuanTA's settings. Raises ValueError for less than two axes, and for sizes that do not make their width."""

    axes: int = 4
    sizes: dict[str, list[int]] | None = field(default=None)  # "4096" -> sizes of its axes, where not by the rule

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "QUANTA"
        self.require_at_least(2, "axes")
        for width, sizes in (self.sizes or {}).items():
            if prod(sizes) != int(width) or len(sizes) < 2:
                raise ValueError(f"QuantaConfig.sizes['{width}'] must be axes that multiply to {width}, got {sizes}.")


class Circuit(nn.Module):
    """The gates of one adapter at one layer, and their start, which is saved with them."""

    def __init__(self, weight: Tensor, config: QuantaConfig) -> None:
        super().__init__()
        self.outputs, self.inputs = weight.shape
        self.width = max(self.outputs, self.inputs)
        self.axes = axes_of(self.width, config.axes, config.sizes)
        pairs = list(combinations(range(len(self.axes)), 2))
        self.pairs = pairs[::-1]
        gates = []
        for first, second in self.pairs:
            size = self.axes[first] * self.axes[second]
            gates.append(torch.empty(size, size).uniform_(-1, 1) / size**0.5)  # kaiming_uniform_ with a = sqrt(5)
        self.gates = nn.ParameterList(nn.Parameter(gate) for gate in gates)
        for number, gate in enumerate(gates):
            self.register_buffer(f"start_{number}", gate.clone())

    def apply_gates(self, x: Tensor, gates: Sequence[Tensor]) -> Tensor:
        """Return T(gates) x (..., outputs) of x (..., inputs)."""
        state = functional.pad(x, (0, self.width - self.inputs)).unflatten(-1, self.axes)
        for (first, second), gate in zip(self.pairs, gates, strict=True):
            places = (first - len(self.axes), second - len(self.axes))
            state = state.movedim(places, (-2, -1))
            turned = functional.linear(state.flatten(-2), gate.to(x.dtype))
            state = turned.unflatten(-1, state.shape[-2:]).movedim((-2, -1), places)
        return state.flatten(-len(self.axes))[..., : self.outputs]

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of x (..., inputs)."""
        start = [self.get_buffer(f"start_{number}") for number in range(len(self.gates))]
        return self.apply_gates(x, list(self.gates)) - self.apply_gates(x, start)

    def delta_weight(self) -> Tensor:
        """Return the update (outputs, inputs)."""
        first = self.gates[0]
        return self(torch.eye(self.inputs, dtype=first.dtype, device=first.device)).T


class QuantaLayer(BranchLayer):
    """A linear layer with QuanTA updates."""

    adapter_layer_names = ("quanta_branch",)
    make_branch = Circuit


class QuantaModel(LinearTuner):
    """A model with QuanTA adapters."""

    prefix = "quanta_"
    tuner_layer_cls = QuantaLayer


register_tuner("quanta", QuantaConfig, QuantaModel, QuantaModel.prefix)
