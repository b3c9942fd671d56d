"""Losses that belong to a method and that PEFT computes but leaves to the training loop to add.

`finish` of an adapter calls one of these: from then on the model's own loss, in training mode, has it inside. With
gradient accumulation over a loss that is normalised over all micro-batches it is added once a micro-batch.
Sources: Wang et al. 2024, arXiv:2412.06071 (KaSA); PEFT 0.21.2, `peft/tuners/lora/model.py`; arXiv:2512.07703
(PVeRA) and its released code, leofillioux/pvera.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PveraConfig
from peft.tuners.pvera.layer import PveraLayer
from torch import Tensor, nn


def add_kasa_loss(model: Any) -> None:
    """Add beta times the squared singular values and gamma times the factors' distance from orthogonality."""
    _add(model, model.base_model._get_kasa_loss)


def add_monteclora_loss(model: Any) -> None:
    """Add the divergence and the entropy of the samplers, weighted as the configuration says."""
    _add(model, model.base_model._get_monteclora_loss)


@dataclass
class PveraDivergenceConfig(PveraConfig):
    """PVeRA with the weight of its divergence in the loss; what is saved is PEFT's own configuration."""

    kl_weight: float = 1e-6

    def to_dict(self) -> dict[str, Any]:
        """Return PEFT's settings."""
        return {key: value for key, value in super().to_dict().items() if key != "kl_weight"}


def add_pvera_divergence(model: Any) -> None:
    """Add `kl_weight` times the divergence of the inner vectors from standard normal ones, which PEFT leaves out.

    Of each matrix the mean over rows, tokens and entries of -(1 + v - m^2 - e^v) / 2, m the mean and v the logarithm of
    the variance; summed over all matrices and halved, as the released code does, which has two in a layer.
    """
    weight = getattr(model.active_peft_config, "kl_weight", 0.0)  # 0 of a saved adapter, which trains no more
    divergences: list[Tensor] = []
    for layer in model.modules():
        if weight and isinstance(layer, PveraLayer):
            observed: Any = partial(_observe, layer, layer._reparametrize, divergences)
            layer._reparametrize = observed
    if weight:
        model.register_forward_pre_hook(lambda *_: divergences.clear())
        _add(model, lambda: weight / 2 * sum(divergences))


def _observe(
    layer: Any, sample: Callable[..., Tensor], divergences: list[Tensor], mean: Tensor, log_variance: Tensor, name: str
) -> Tensor:
    """Return PEFT's sample of a layer's inner vector, and keep its divergence."""
    if layer.training and torch.is_grad_enabled():
        divergences.append(-0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean())
    return sample(mean, log_variance, name)


def _add(model: nn.Module, extra: Callable[[], Tensor | float]) -> None:
    def hook(module: nn.Module, _: Any, output: Any) -> Any:
        if module.training and getattr(output, "loss", None) is not None:
            output.loss = output.loss + extra()
        return output

    model.register_forward_hook(hook)
