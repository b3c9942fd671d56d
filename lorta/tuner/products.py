"""The products of LoRTA's forward and backward pass, written so that a training step costs less than LoRA's.

Two things are shared. Projections that read the same input (q, k and v) share x @ A, and their wide matrices are built
together: the first of them does both, the others find the results in `InputGroup`. And a frozen `nn.Linear` and its
update share one autograd node: the update is added into the base layer's output, and its gradient for the input into
the base layer's, so no further tensor of that size is made, forward or backward.
"""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lorta.tuner.factors import Position


class Pass(NamedTuple):
    """What the first member of a group computed in a forward pass."""

    input: "weakref.ref[Tensor]"
    state: tuple[Any, ...]  # of autograd and of the input, then
    product: Tensor  # x @ A, (*batch, rank)
    wide: list[Tensor]  # of each member, (outputs, rank)
    waiting: set[int]  # members that have not asked yet


class InputGroup:
    """The projections of one layer that read the same input, and what they share in one forward pass.

    A member that asks twice starts a new pass, so that a recomputed forward (gradient checkpointing) repeats the same
    operations and a weight that was changed between two passes is seen. The input is held weakly.
    """

    def __init__(self, position: Position) -> None:
        self.position = position  # of all members as if they were one module
        self._pass: Pass | None = None  # read and replaced as a whole: requests in other threads come in between

    def find(self, x: Tensor, member: int) -> tuple[Tensor, Tensor] | None:
        """Return (x @ A, the member's wide matrix) of the pass that this input belongs to, or None."""
        known = self._pass
        if known is None or known.input() is not x or known.state != _state(x) or member not in known.waiting:
            return None
        known.waiting.discard(member)
        if not known.waiting:
            self._pass = None  # nothing of a pass outlives it
        return known.product, known.wide[member]

    def keep(self, x: Tensor, member: int, product: Tensor, wide: list[Tensor]) -> None:
        """Keep what the first member computed for the others."""
        self._pass = Pass(weakref.ref(x), _state(x), product, wide, set(range(len(wide))) - {member})

    def __getstate__(self) -> dict[str, Any]:
        return vars(type(self)(self.position))


def _state(x: Tensor) -> tuple[Any, ...]:
    """What must not have changed since the first member, beside the input's identity."""
    return x._version, torch.is_grad_enabled(), torch.is_autocast_enabled(x.device.type)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


class HeadsOnOutput(torch.autograd.Function):
    """linear(x, weight, bias) + product @ wide.T, for a frozen weight; product is x @ A, shared by a group."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *update: Tensor) -> Tensor:
        """`update`: product (*batch, rank) and wide (outputs, rank)."""
        product, wide = update
        output = functional.linear(x, weight, bias)
        _rows(output).addmm_(_rows(product), wide.T)
        ctx.save_for_backward(weight, product, wide)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the forward arguments; made of differentiable operations."""
        weight, product, wide = ctx.saved_tensors
        flat = _rows(gradient)
        to_input = (flat @ weight).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        return to_input, None, None, (flat @ wide).view(product.shape), flat.T @ _rows(product)


class HeadsOnInput(torch.autograd.Function):
    """linear(x, weight, bias) + (x @ wide) @ hidden.T, for a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *update: Tensor) -> Tensor:
        """`update`: wide (inputs, rank) and hidden (outputs, rank)."""
        wide, hidden = update
        output = functional.linear(x, weight, bias)
        product = _rows(x) @ wide
        _rows(output).addmm_(product, hidden.T)
        ctx.save_for_backward(x, weight, product, wide, hidden)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the forward arguments; made of differentiable operations."""
        x, weight, product, wide, hidden = ctx.saved_tensors
        flat = _rows(gradient)
        if torch.is_grad_enabled():  # create_graph: second derivatives go through it, and what is kept has no graph
            product = _rows(x) @ wide
        to_product = flat @ hidden
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = (flat @ weight).addmm_(to_product, wide.T).view(x.shape)
        return to_input, None, None, _rows(x).T @ to_product, flat.T @ product
