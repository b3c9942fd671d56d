"""LoRA-FA, LoRA with a frozen A and a gradient of B that makes up for it (Zhang et al. 2023, arXiv:2308.03303).

    gradient of B  becomes  gradient @ (A A^T + delta I)^-1 / s^2,  s the scaling

as PEFT's own optimizer does, which is plain AdamW for all else and takes no rate of its own for the head; here it is a
callback and the trainer's AdamW follows. Under AdamW only the rotation between ranks survives, not 1 / s^2.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

DELTA = 1e-8  # PEFT 0.21.2, `peft/optimizers/lorafa.py`


def freeze_a(model: Any) -> None:
    """Freeze A of every LoRA layer."""
    for name, weight in model.named_parameters():
        if ".lora_A." in name:
            weight.requires_grad_(False)


class ProjectedGradient(TrainerCallback):
    """Replaces the gradients of all B, clipped already, before each optimizer step."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replace them for the active adapters."""
        for layer in kwargs["model"].modules():
            if isinstance(layer, LoraLayer):
                for adapter in set(layer.active_adapters) & set(layer.lora_B):
                    a, b = (cast(Any, factors[adapter]).weight for factors in (layer.lora_A, layer.lora_B))
                    project(a, b, layer.scaling[adapter])

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return nothing for a checkpoint: nothing is kept between steps."""
        return {}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint."""


@torch.no_grad()
def project(a: torch.Tensor, b: torch.Tensor, scaling: float) -> None:
    """Replace the gradient of b (outputs, r) by that of the full weight seen through a (r, inputs)."""
    if b.grad is not None:
        wide = a.double()
        gram = wide @ wide.T + DELTA * torch.eye(len(a), dtype=wide.dtype, device=a.device)
        b.grad.copy_(torch.linalg.solve(gram, b.grad.T.double()).T / scaling**2)
