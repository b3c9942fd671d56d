"""TensLoRA: the updates of attention stacked into tensors over heads, projections and layers, in Tucker or CP form.

    update[input, output] of (m, l) = scale * sum over all ranks of  core * input * output * matrices[m] * layers[l]

`modes` says what is stacked: att (output becomes heads and head_dim), qkv (a mode `matrices`), depth (a mode `layers`).
What is not stacked has a tensor of its own at each index. CP is Tucker with equal ranks and a superdiagonal core of 1.

Source: Marmoret et al. 2025, arXiv:2509.19391; released code (ax-le/TensLoRA). Two differences: that code seeds every
tensor alike, so tensors that are not shared start equal, here they are drawn one after the other; and it lays
(head_dim, heads) out with heads as the fastest index, so that its heads are not the model's, here they are. Its dropout
setting never reaches the tensors; here `dropout` is on the layer's input.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from baselines.tensor.family import Factors, Pair, TensorConfig, TensorLinear, TensorModel
from baselines.tensor.places import layers_of, roles_of, tenslora_modes, tenslora_ranks
from lorta.peft_extension.registry import register_tuner

MODES = ("att", "qkv", "depth", "att_qkv", "att_depth", "qkv_depth", "att_qkv_depth")
NAMES = ("core", "input", "output", "head_dim", "heads", "matrices", "layers")


@dataclass
class TensloraConfig(TensorConfig):
    """TensLoRA settings."""

    modes: str = "qkv_depth"
    factorization: str = "tucker"
    ranks: list[int] | None = None  # one a mode, in Tucker form: input, output or head_dim and heads, matrices, layers
    init: str = "orthogonal"  # of the factors that do not start at 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("modes", MODES)
        self.require("factorization", ("tucker", "cp"))
        self.require("init", ("orthogonal", "normal", "kaiming_uniform"))

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.scale


class TensloraLinear(TensorLinear):
    """A linear layer with TensLoRA updates; every factor's first axis is the number of the tensor."""

    prefix = "tenslora_"
    adapter_layer_names = tuple(f"tenslora_{name}" for name in NAMES)

    @staticmethod
    def pair(config: TensloraConfig, factors: Factors, role: str, rows: tuple[int, dict[str, int]]) -> Pair:
        """Return (input factor, the rest); `rows`: the tensor, and the row of every stacked mode."""
        tensor, stacked = rows
        part = {name: factor[tensor] for name, factor in factors.items()}
        if config.factorization == "cp":
            up = part["output"] if "output" in part else (part["heads"][:, None] * part["head_dim"]).flatten(0, 1)
            for name, row in stacked.items():
                up = up * part[name][row]
            return part["input"], up
        core = part["core"]
        for name, row in reversed(stacked.items()):  # the last axes of the core
            core = core @ part[name][row]
        if "output" in part:
            return part["input"], part["output"] @ core.T
        return part["input"], torch.einsum("hb,ca,iab->hci", part["heads"], part["head_dim"], core).flatten(0, 1)


class TensloraModel(TensorModel):
    """A model with TensLoRA adapters."""

    prefix = TensloraLinear.prefix
    tuner_layer_cls = TensloraLinear
    title = "TensLoRA"
    default_roles = ("q", "k", "v")

    @staticmethod
    def check(config: TensloraConfig, described: Mapping[str, Any]) -> None:
        """Raise ValueError for projections that make no tensor, or ranks that do not fit it."""
        sizes = tenslora_modes(described, config.modes)[1]
        tenslora_ranks(config.factorization, len(sizes), config.r, config.ranks)

    @staticmethod
    def rows_of(config: TensloraConfig, layer: int, role: str) -> tuple[int, dict[str, int]]:
        """Return (number of the tensor, row of every stacked mode)."""
        layers, roles = layers_of(config.described), roles_of(config.described)
        tensor, stacked = 0, dict[str, int]()
        for name, mode, row, size in (
            ("qkv", "matrices", roles.index(role), len(roles)),
            ("depth", "layers", layers.index(layer), len(layers)),
        ):
            if name in config.modes.split("_"):
                stacked[mode] = row
            else:
                tensor = tensor * size + row
        return tensor, stacked

    @staticmethod
    def initial(config: TensloraConfig) -> dict[str, Tensor]:
        """Return factors by `init`; the core, in CP form the input factor, starts at 0, as released."""
        tensors, sizes = tenslora_modes(config.described, config.modes)
        ranks = tenslora_ranks(config.factorization, len(sizes), config.r, config.ranks)
        factors = {
            name: torch.stack([_draw(torch.empty(size, rank), config, ranks) for _ in range(tensors)])
            for (name, size), rank in zip(sizes.items(), ranks, strict=True)
        }
        if config.factorization == "cp":
            return factors | {"input": torch.zeros_like(factors["input"])}
        return factors | {"core": torch.zeros(tensors, *ranks)}


def _draw(factor: Tensor, config: TensloraConfig, ranks: list[int]) -> Tensor:
    """Fill one factor as released; the deviation of `normal` is tensorly's."""
    if config.init == "orthogonal":
        return nn.init.orthogonal_(factor)
    if config.init == "kaiming_uniform":
        return nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
    if config.factorization == "cp":
        return nn.init.normal_(factor, std=config.r ** (-0.5 / len(ranks)))
    return nn.init.normal_(factor, std=math.prod(ranks) ** (-0.5 / (len(ranks) + 1)))


register_tuner("tenslora", TensloraConfig, TensloraModel, TensloraModel.prefix)
