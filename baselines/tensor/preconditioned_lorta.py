"""LoRTA whose gradients are preconditioned factor by factor, before the optimizer sees them.

    gradient of a factor X (n, r)  becomes  gradient @ (P + epsilon * mean(diag P) I)^-1,  P = hadamard of Y^T Y

over the other four factors Y: the normal matrix of an alternating least-squares step for a CP tensor, which makes a
step the same whatever scales the factors share out among them. Under AdamW, which divides by the gradient's size entry
by entry, only the rotation between ranks survives. The adapter itself is LoRTA.

Source: two forks of the released code and a student poster (Yu, Poon and Giampouras, Warwick 2025), no paper. One fork
loops over layers, heads and matrices for the same P and adds 1e-6 I; while head_dim is 0 that divides by 1e-6. The
other swallows its own shape error and so applies nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorta.tuner import LortaConfig
from lorta.tuner.factors import FACTORS, ORDERS, factor_axes
from lorta.tuner.layer import PREFIX
from lorta.tuner.model import LortaModel

NAMES = tuple(factor_axes(ORDERS["5_way"]))


@dataclass
class PreconditionedLortaConfig(LortaConfig):
    """LoRTA's settings and `epsilon`, which is saved nowhere: it matters in training alone.

    Raises ValueError for an order other than the paper's.
    """

    epsilon: float = 1e-6  # of the mean of P's diagonal

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order != "5_way":
            raise ValueError(f"PreconditionedLortaConfig.order must be 5_way, got '{self.order}': use LortaConfig.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of the LoRTA adapter."""
        return {key: value for key, value in super().to_dict().items() if key != "epsilon"}


def normal_matrices(factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return for each factor (n, r) the Hadamard product (r, r) of all the others' Gram matrices."""
    grams = {name: factor.T @ factor for name, factor in factors.items()}
    return {name: reduce(torch.mul, [gram for other, gram in grams.items() if other != name]) for name in factors}


@torch.no_grad()
def precondition(factors: Mapping[str, Tensor], epsilon: float) -> None:
    """Replace the gradients of all factors. One whose P is 0 stays as it is: its gradient is 0 as well."""
    for name, normal in normal_matrices({name: factor.double() for name, factor in factors.items()}).items():
        factor, size = factors[name], normal.diagonal().mean()
        if factor.grad is None or not size > 0:
            continue
        damped = normal + epsilon * size * torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        factor.grad.copy_(torch.linalg.solve(damped, factor.grad.T.double()).T)


class Preconditioning(TrainerCallback):
    """Preconditions the active adapters' gradients, clipped already, before each optimizer step."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.epsilon = float(config["epsilon"])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Precondition. Raises ValueError for an adapter with factors of the feed-forward block."""
        for factors in adapter_factors(kwargs["model"]):
            precondition(factors, self.epsilon)

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return nothing for a checkpoint: nothing is kept between steps."""
        return {}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""


def adapter_factors(model: nn.Module) -> list[dict[str, Tensor]]:
    """Return the five factors of each active LoRTA adapter by name."""
    (tuner,) = [module for module in model.modules() if isinstance(module, LortaModel)]
    factors = []
    for adapter in tuner.active_adapters:
        present = [name for name in FACTORS if adapter in getattr(tuner, PREFIX + name)]
        if set(present) != set(NAMES):
            raise ValueError(
                f"preconditioned LoRTA needs the factors {', '.join(NAMES)} alone, adapter '{adapter}' has "
                f"{', '.join(present)}: adapt q, k, v and o only."
            )
        factors.append({name: getattr(tuner, PREFIX + name)[adapter] for name in NAMES})
    return factors
