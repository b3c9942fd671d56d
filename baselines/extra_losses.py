"""Losses that belong to a method and that PEFT computes but leaves to the training loop to add.

`finish` of an adapter calls one of these: from then on the model's own loss, in training mode, has it inside. With
gradient accumulation over a loss that is normalised over all micro-batches it is added once a micro-batch.
Sources: Wang et al. 2024, arXiv:2412.06071 (KaSA); PEFT 0.21.2, `peft/tuners/lora/model.py`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def add_kasa_loss(model: Any) -> None:
    """Add beta times the squared singular values and gamma times the factors' distance from orthogonality."""
    _add(model, model.base_model._get_kasa_loss)


def add_monteclora_loss(model: Any) -> None:
    """Add the divergence and the entropy of the samplers, weighted as the configuration says."""
    _add(model, model.base_model._get_monteclora_loss)


def _add(model: nn.Module, extra: Callable[[], Tensor | float]) -> None:
    def hook(module: nn.Module, _: Any, output: Any) -> Any:
        if module.training and getattr(output, "loss", None) is not None:
            output.loss = output.loss + extra()
        return output

    model.register_forward_hook(hook)
