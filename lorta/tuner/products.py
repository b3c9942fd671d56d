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


class Shared(NamedTuple):
    """What the projections that read one input compute together."""

    product: Tensor  # x @ A, (*batch, rank)
    wide: list[Tensor]  # of each member, (outputs, rank)


class InputGroup:
    """The projections of one layer that read the same input, and what they share in one forward pass.

    A member that asks twice starts a new pass, so that a recomputed forward (gradient checkpointing) repeats the same
    operations and a weight that was changed between two passes is seen. The input is held weakly.
    """

    def __init__(self, position: Position) -> None:
        self.position = position  # of all members as if they were one module
        self._input: weakref.ref[Tensor] | None = None
        self._state: tuple[Any, ...] = ()
        self._shared: Shared | None = None
        self._waiting: set[int] = set()

    def find(self, x: Tensor, member: int) -> Shared | None:
        """Return what the pass that this input belongs to shares, if this member has not had it yet."""
        if self._input is None or self._input() is not x or member not in self._waiting or self._state != _state(x):
            return None
        shared = self._shared
        self._waiting.discard(member)
        if not self._waiting:
            self.forget()
        return shared

    def keep(self, x: Tensor, member: int, shared: Shared) -> None:
        """Keep what the first member computed for the others."""
        self._input, self._state, self._shared = weakref.ref(x), _state(x), shared
        self._waiting = set(range(len(shared.wide))) - {member}

    def forget(self) -> None:
        """Drop what is kept, so that nothing of a pass outlives it."""
        self._input, self._shared, self._waiting = None, None, set()

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
        to_product = flat @ hidden
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = (flat @ weight).addmm_(to_product, wide.T).view(x.shape)
        return to_input, None, None, _rows(x).T @ to_product, flat.T @ product
