"""What layers see in training batches: the gradients of their weights, and the first two moments of their inputs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Batches = Iterable[dict[str, Tensor]]


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Run the model without dropout, and leave it as it was, without gradients."""
    training = model.training
    try:
        yield model.eval() and None
    finally:
        model.train(training).zero_grad()


def mean_gradients(model: nn.Module, layers: list[nn.Linear], batches: Batches) -> list[Tensor]:
    """Return each layer's mean gradient (outputs, inputs) of the loss, in float32.

    Raises ValueError for weights that cannot have one, such as 4-bit ones.
    """
    if not all(layer.weight.is_floating_point() for layer in layers):
        raise ValueError(
            "LoRA-GA needs gradients of the base weights, which quantised ones have not: use corda or eva."
        )
    sums, number = [torch.zeros_like(layer.weight, dtype=torch.float32) for layer in layers], 0
    frozen = [layer.weight.requires_grad for layer in layers]
    try:
        for layer in layers:
            layer.weight.requires_grad_(True)
        with evaluated(model):
            for batch in batches:
                number += 1
                gradients = torch.autograd.grad(model(**batch).loss, [layer.weight for layer in layers])
                for total, gradient in zip(sums, gradients, strict=True):
                    total += gradient
    finally:
        for layer, before in zip(layers, frozen, strict=True):
            layer.weight.requires_grad_(before)
    return [total / max(number, 1) for total in sums]


@torch.no_grad()
def input_moments(model: nn.Module, layers: list[nn.Linear], batches: Batches) -> list[tuple[Tensor, Tensor]]:
    """Return for each layer the mean of x x^T (inputs, inputs) and of x (inputs) over all tokens but padding."""
    sums: list[Any] = [0.0] * len(layers)
    mask: Tensor | None = None

    def add(number: int, x: Tensor) -> None:
        rows = x[mask] if mask is not None and x.shape[:2] == mask.shape else x.flatten(end_dim=-2)
        rows = rows.float()
        ones = torch.ones(len(rows), 1, device=rows.device)
        extended = torch.cat([rows, ones], dim=1)  # its moment has that of x, the sum of x, and the number of rows
        sums[number] = sums[number] + extended.T @ extended

    def hook(number: int) -> Any:
        return lambda _, arguments: add(number, arguments[0])

    handles = [layer.register_forward_pre_hook(hook(number)) for number, layer in enumerate(layers)]
    try:
        with evaluated(model):
            for batch in batches:
                mask = batch["attention_mask"].bool() if "attention_mask" in batch else None
                model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return [(total[:-1, :-1] / total[-1, -1], total[:-1, -1] / total[-1, -1]) for total in sums]
