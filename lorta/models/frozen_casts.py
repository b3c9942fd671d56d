"""Frozen weights in bfloat16 for as long as autocast would cast them at every step: the same numbers, fewer copies.

Autocast casts a linear layer's frozen weight anew in each forward pass, and keeps the copy until the backward pass. A
copy that is made once gives the same bits. The server that workers are forked from makes it for all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from lorta.tuner.layer import LortaLinear

_KEPT: list[Tensor] = []  # casts of weights that workers will load, by the process that they are forked from


def keep_casts(model: nn.Module) -> None:
    """Keep a copy of each weight that `frozen_casts` would cast, for this process and those that are forked from it."""
    model.requires_grad_(False)
    _KEPT.extend(_cast(layer.weight) for layer in _castable(model))


@contextmanager
def frozen_casts(model: nn.Module, precision: str) -> Iterator[None]:
    """Hold the weights of frozen linear layers in bfloat16 within the block, if `precision` is "bf16", on a CPU.

    Subclasses of `nn.Linear` keep theirs, and so do layers that a tuner wraps, since its formula may read them. LoRA's
    and LoRTA's layers only call what they wrap, which is held. A language head that shares its weight with an embedding
    has one of its own within the block; that of a mixture of experts stays, since TRL's loss reads it.

    Raises RuntimeError at the end for a weight that was trained or changed meanwhile.
    """
    layers = _castable(model) if precision == "bf16" else []
    originals = [layer.weight for layer in layers]
    held = [nn.Parameter(_kept(weight), requires_grad=False) for weight in originals]
    for layer, weight in zip(layers, held, strict=True):
        layer.weight = weight
    try:
        yield
        now = zip(layers, held, originals, strict=True)
        changed = sum(layer.weight is not ours or not _is_cast_of(ours, weight) for layer, ours, weight in now)
    finally:
        for layer, weight in zip(layers, originals, strict=True):
            layer.weight = weight
    if changed:
        raise RuntimeError(
            f"{changed} frozen weights were changed while they were held in bfloat16: a method that changes weights "
            "has to train them (requires_grad), or to be run with trainer.precision=fp32"
        )


def _castable(model: nn.Module) -> list[nn.Linear]:
    """Return the layers whose weight is read by `nn.Linear.forward` alone, whose product autocast takes in bfloat16."""
    wrapped = {
        id(part)
        for module in model.modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        for part in module.modules()
        if not (_only_calls_its_base(module) and part is cast(Any, module).base_layer)
    }
    text: Any = getattr(model, "config", None) and cast(Any, model).config.get_text_config()
    if getattr(text, "output_router_logits", False):
        wrapped.add(id(cast(Any, model).get_output_embeddings()))
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and id(module) not in wrapped
        and not module.weight.requires_grad
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    ]


def _only_calls_its_base(module: nn.Module) -> bool:
    return type(module) is LortaLinear or (type(module) is LoraLinear and not module.lora_variant)


def _is_cast_of(held: Tensor, weight: Tensor) -> bool:
    return not held.requires_grad and not weight.requires_grad and torch.equal(held.detach(), _cast(weight))


def _cast(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.bfloat16)


def _kept(weight: Tensor) -> Tensor:
    """Return a kept copy with the weight's values, or a new one."""
    ours = _cast(weight)
    return next((kept for kept in _KEPT if kept.shape == ours.shape and torch.equal(kept, ours)), ours)
