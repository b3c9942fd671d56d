"""LoTR: the updates of all layers share a left and a right factor, and each has a small core of its own.

    update of slot j = (alpha / r) * left @ core[j] @ right.T,  left (outputs, r), core (slots, r, r), right (inputs, r)

a Tucker-2 form of the stacked updates. Source: Bershatsky et al. 2024, arXiv:2402.01376; released code (daskol/lotr),
in which query and value share one pair. That code can also start from the Tucker factors of the frozen weights; here is
its default only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.tensor.family import Factors, Pair, TensorConfig, TensorLinear, TensorModel
from baselines.tensor.places import common_widths, roles_of, slots_of, widths
from lorta.geometry import ROLES
from lorta.peft_extension.registry import register_tuner


@dataclass
class LotrConfig(TensorConfig):
    """LoTR settings."""

    alpha: float = 1.0  # divided by r; the released code's `scale`
    separate: bool = False  # a pair for each projection; projections of different sizes need it

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.alpha / self.r


class LotrLinear(TensorLinear):
    """A linear layer with LoTR updates; `dropout` is on its input."""

    prefix = "lotr_"
    adapter_layer_names = tuple(
        f"lotr_{name}"
        for name in ("core", "left", "right", *(f"{side}_{r}" for r in ROLES for side in ("left", "right")))
    )

    @staticmethod
    def pair(config: LotrConfig, factors: Factors, role: str, rows: int) -> Pair:
        """Return (right @ core.T, left) of a slot; `rows` is its number."""
        end = f"_{role}" if config.separate else ""
        return factors["right" + end] @ factors["core"][rows].T, factors["left" + end]


class LotrModel(TensorModel):
    """A model with LoTR adapters."""

    prefix = LotrLinear.prefix
    tuner_layer_cls = LotrLinear
    title = "LoTR"
    default_roles = ("q", "v")

    @staticmethod
    def check(config: LotrConfig, described: Mapping[str, Any]) -> None:
        """Raise ValueError where projections of different sizes are to share a pair."""
        if not config.separate:
            common_widths("LoTR", described)

    @staticmethod
    def rows_of(config: LotrConfig, layer: int, role: str) -> int:
        """Return the number of a slot."""
        return slots_of(config.described, ROLES).index((layer, role))

    @staticmethod
    def initial(config: LotrConfig) -> dict[str, Tensor]:
        """Return left and right from N(0, 1) and cores of 0, as released."""
        described = config.described
        pairs = {"": common_widths("LoTR", described)} if not config.separate else {}
        if config.separate:
            pairs = {f"_{role}": widths(described, role, grouped=True) for role in roles_of(described)}
        factors = {"core": torch.zeros(len(slots_of(described, ROLES)), config.r, config.r)}
        for end, (inputs, outputs) in pairs.items():
            factors["left" + end] = torch.randn(outputs, config.r)
            factors["right" + end] = torch.randn(inputs, config.r)
        return factors


register_tuner("lotr", LotrConfig, LotrModel, LotrModel.prefix)
