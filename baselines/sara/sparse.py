"""SaRA on tensors: the smallest entries, a product with a sparsely changed weight, the nuclear norm's gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MANTISSA = 23  # bits of a float32 below its exponent


def smallest_magnitudes(weights: Sequence[Tensor], count: int) -> tuple[list[Tensor], float]:
    """Return flat indices of the `count` entries nearest to zero of all weights together, and the threshold above them.

    Equal magnitudes are taken in the order of the weights and of their entries. Raises ValueError for too many.
    """
    total = sum(weight.numel() for weight in weights)
    if count > total:
        raise ValueError(f"SaRA cannot select {count} of {total} weights: use a lower rank.")
    powers = torch.stack([torch.bincount(_bits(weight) >> MANTISSA, minlength=256) for weight in weights]).sum(0)
    power = int((powers.cumsum(0) < count).sum())  # of two, below which there are enough: no copy of all weights
    near = torch.cat([bits[bits >> MANTISSA <= power] for bits in map(_bits, weights)])
    largest = int(near.kthvalue(count).values)
    ties = count - int((near < largest).sum())
    chosen: list[Tensor] = []
    for weight in weights:
        bits = _bits(weight)
        tied = (bits == largest).nonzero().flatten()[:ties]
        ties -= tied.numel()
        chosen.append(torch.cat([(bits < largest).nonzero().flatten(), tied]).sort().values)
    return chosen, torch.tensor(largest + 1, dtype=torch.int32).view(torch.float32).item()


def _bits(weight: Tensor) -> Tensor:
    """Return magnitudes as integers of the same order (IEEE 754), flat."""
    return weight.detach().flatten().float().abs().view(torch.int32)


def nuclear_gradient(matrix: Tensor) -> Tensor:
    """Return the least subgradient of the nuclear norm: U V^T over the singular values that are not zero."""
    left, values, right = torch.linalg.svd(matrix.float(), full_matrices=False)
    noise = values.max() * max(matrix.shape) * torch.finfo(values.dtype).eps
    return (left * (values > noise)) @ right


def shifted(weight: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    """Return a copy of the weight with values added at flat indices, summed in float32 at least and rounded once."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return weight.flatten().to(wide).index_add(0, indices, values.to(wide)).to(weight.dtype).view_as(weight)


class SparselyShiftedLinear(torch.autograd.Function):
    """x (W + S)^T with S sparse. Dense matrices live for one layer's moment only, forward as backward.

    The paper's "unstructural back-propagation": autograd of a scattered weight would keep it, and its gradient.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, indices: Tensor, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the product, (..., outputs) for x (..., inputs) and a weight (outputs, inputs)."""
        return functional.linear(x, shifted(weight, indices, values).to(x.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep the arguments for backward; apart from `forward`, or torch.func cannot transform it."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, Tensor]:
        """Return the gradients of x and of the values (eq. 7: the dense gradient, gathered)."""
        (grad,) = grad_outputs
        x, weight, indices, values = ctx.saved_tensors
        grad_x = grad @ shifted(weight, indices, values).to(grad.dtype) if ctx.needs_input_grad[0] else None
        dense = grad.flatten(0, -2).T @ x.flatten(0, -2)
        return grad_x, None, None, dense.flatten()[indices].to(values.dtype)
