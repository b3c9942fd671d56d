"""FacT: all updates of a model, cut into square blocks, as one tensor in tensor-train or Tucker form.

    update of block j = scale * output @ core_j @ input,    output (d, r), core_j (r, r), input (r, d)

input and output are shared by every block. In tensor-train form the cores are free; in Tucker form core_j is the sum
over t of core[:, :, t] * slices[t, j]. Projections to and from the feed-forward block are 4 blocks each: those of `up`
side by side on its outputs, those of `down` on its inputs.

Source: Jie and Deng 2023, arXiv:2212.03145; released code (JieShibo/PETL-ViT). Its Tucker form mixes the entries of
the 4 cores of `up` (it reshapes (r, r, 4) to (r, 4 r), the block being the fastest index); here every block has one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.tensor.family import Factors, Pair, TensorConfig, TensorLinear, TensorModel
from baselines.tensor.places import block_grid, block_widths, first_blocks
from lorta.geometry import ROLES
from lorta.peft_extension.registry import register_tuner


@dataclass
class FactConfig(TensorConfig):
    """FacT settings; `dropout` acts between core and output factor."""

    form: str = "tt"  # tensor train, or "tk": Tucker
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("form", ("tt", "tk"))

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.scale


class FactLinear(TensorLinear):
    """A linear layer with FacT updates."""

    prefix = "fact_"
    adapter_layer_names = ("fact_input", "fact_output", "fact_cores", "fact_core", "fact_slices")

    @staticmethod
    def pair(config: FactConfig, factors: Factors, role: str, rows: tuple[int, int, int]) -> Pair:
        """Return (inputs through the cores, output factor for every block along the outputs).

        `rows`: the first block, how many there are along the inputs and how many along the outputs.
        """
        first, across, along = rows
        last = first + across * along
        if config.form == "tt":
            cores = factors["cores"][first:last]
        else:
            cores = torch.einsum("abt,tj->jab", factors["core"], factors["slices"][:, first:last])
        cores = cores.view(across, along, *cores.shape[1:])
        down = torch.einsum("bi,xyab->xiya", factors["input"], cores)
        output = factors["output"]
        up = output if along == 1 else torch.block_diag(*[output] * along)
        return down.flatten(0, 1).flatten(1), up

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output."""
        down, up = self.low_rank_pair(adapter, x.device)
        inner = functional.linear(self._cast_input_dtype(x, down.dtype), down.T)
        return functional.linear(self.adapter_dropout[adapter](inner), up)


class FactModel(TensorModel):
    """A model with FacT adapters."""

    prefix = FactLinear.prefix
    tuner_layer_cls = FactLinear
    title = "FacT"
    default_roles = ROLES

    @staticmethod
    def check(config: FactConfig, described: Mapping[str, Any]) -> None:
        """Raise ValueError for a projection that is no whole number of blocks."""
        block_widths("FacT", described, ROLES)

    @staticmethod
    def rows_of(config: FactConfig, layer: int, role: str) -> tuple[int, int, int]:
        """Return (first block, blocks along the inputs, blocks along the outputs)."""
        block = block_widths("FacT", config.described, ROLES)
        return first_blocks(config.described, ROLES, block)[layer, role], *block_grid(config.described, role, block)

    @staticmethod
    def initial(config: FactConfig) -> dict[str, Tensor]:
        """Return factors as released: output 0, the other linear layers of torch's default, Tucker's Xavier uniform."""
        inputs, outputs = block_widths("FacT", config.described, ROLES)
        count, rank = first_blocks(config.described, ROLES, (inputs, outputs))[-1, ""], config.r
        factors = {
            "input": torch.empty(rank, inputs).uniform_(-(inputs**-0.5), inputs**-0.5),
            "output": torch.zeros(outputs, rank),
        }
        if config.form == "tt":
            return factors | {"cores": _initial_cores(config, torch.empty(count, rank, rank))}
        core, slices = torch.empty(rank, rank, rank), torch.empty(rank, count)
        return factors | {"core": nn.init.xavier_uniform_(core), "slices": nn.init.xavier_uniform_(slices)}


def _initial_cores(config: FactConfig, cores: Tensor) -> Tensor:
    """Draw every core as part of the `nn.Linear` that holds it as released: `down` has all its blocks in one."""
    block = block_widths("FacT", config.described, ROLES)
    for (_, role), first in first_blocks(config.described, ROLES, block).items():
        if role:
            across, along = block_grid(config.described, role, block)
            bound = 1 / math.sqrt(across * config.r)
            cores[first : first + across * along].uniform_(-bound, bound)
    return cores


register_tuner("fact", FactConfig, FactModel, FactModel.prefix)
