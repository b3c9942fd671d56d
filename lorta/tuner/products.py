"""The products of LoRTA's forward and backward pass, written so that a training step costs less than LoRA's.

Two things are shared. Projections that read the same input (q, k and v) share x @ A, and their wide matrices are built
together: the first of them does both, the others find the results in `InputGroup`.
And a frozen `nn.Linear` and its update share one autograd node: the update is added into the base layer's output, and
their gradients for the input into one another, so that no further tensor of that size is made, forward or backward. For
that, the members of a group read the input and x @ A through one another: each hands aliases of both to the next, and
adds its own gradients to the next one's.

Every product takes the dtype of its input, which autocast has cast, once for all members of a group. Gradients of
hidden and of the wide matrices leave each layer in their own dtype, so that sums over heads and layers are as exact.

Thin matrices stand rank-major, as (rank, rows): on a CPU that makes their products up to three times faster.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorta.tuner.factors import Position

Gradients = tuple[Tensor | None, ...]


class Pass(NamedTuple):
    """What the first member of a group computed in a forward pass."""

    input: "weakref.ref[Tensor]"
    state: tuple[Any, ...]  # of autograd and of the input, then
    wide: Sequence[Tensor]  # of each member, (outputs, rank)
    reading: list[Tensor]  # aliases of the input, cast, and of (x @ A).T, for the next member
    waiting: set[int]  # members that have not asked yet


class InputGroup:
    """The projections of one layer that read the same input, and what they share in one forward pass.

    A member that asks twice starts a new pass, so that a recomputed forward (gradient checkpointing) repeats the same
    operations and a weight that was changed between two passes is seen. The input is held weakly.
    """

    def __init__(self, position: Position) -> None:
        self.position = position  # of all members as if they were one module
        self._pass: Pass | None = None  # read and replaced as a whole: requests in other threads come in between

    def find(self, x: Tensor, member: int) -> tuple[Tensor, list[Tensor]] | None:
        """Return (this member's wide matrix, what to read) of the pass that this input belongs to, or None."""
        known = self._pass
        if known is None or known.input() is not x or known.state != _state(x) or member not in known.waiting:
            return None
        known.waiting.discard(member)
        if not known.waiting:
            self._pass = None  # nothing of a pass outlives it
        return known.wide[member], known.reading

    def keep(self, x: Tensor, member: int, wide: Sequence[Tensor], reading: list[Tensor]) -> None:
        """Keep what the first member computed for the others."""
        self._pass = Pass(weakref.ref(x), _state(x), wide, reading, set(range(len(wide))) - {member})

    def __getstate__(self) -> dict[str, Any]:
        return vars(type(self)(self.position))


def _state(x: Tensor) -> tuple[Any, ...]:
    """What must not have changed since the first member, beside the input's identity."""
    return x._version, torch.is_grad_enabled(), autocast_dtype(x)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """Return the dtype that autocast gives to products of x now, or None without autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def product_dtype(x: Tensor, *others: Tensor) -> torch.dtype | None:
    """Return the dtype that these tensors are multiplied in, or None where it is not the same for all of them."""
    dtypes, cast = {x.dtype, *(other.dtype for other in others)}, autocast_dtype(x)
    if cast is not None and torch.float64 not in dtypes and all(dtype.is_floating_point for dtype in dtypes):
        return cast  # autocast leaves float64 alone
    return x.dtype if len(dtypes) == 1 else None


def is_transformed() -> bool:
    """Return whether grad, vmap, jvp or another of `torch.func`, or forward-mode differentiation, is going on.

    They take a function apart into PyTorch's own operations; those below have nothing but a backward pass.
    """
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _accumulated(gradient: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return gradient + left @ right, in the gradient's memory: only the reader before it gets to see it."""
    if gradient is None:
        return left @ right
    in_place = not torch.is_grad_enabled() and not is_transformed()
    return gradient.addmm_(left, right) if in_place else gradient.addmm(left, right)


def _as_forward(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Let a backward pass that is called under autocast keep the dtypes of its forward pass."""

    @functools.wraps(backward)
    def keep(ctx: Any, *gradients: Tensor | None) -> Gradients:
        if not torch.is_autocast_enabled(ctx.device_type):
            return backward(ctx, *gradients)
        with torch.autocast(ctx.device_type, enabled=False):
            return backward(ctx, *gradients)

    return keep


class InputProduct(torch.autograd.Function):
    """((x @ hidden).T, an alias of x): (*batch, inputs) and (inputs, rank) to (rank, rows), in the dtype of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return the product and the alias; a gradient comes back through the alias if the input wants one."""
        ctx.save_for_backward(x, hidden)
        return _product(x, hidden), *_aliases(ctx, x)

    @staticmethod
    @_as_forward
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        """Return the gradients of x and hidden; made of differentiable operations."""
        x, hidden = ctx.saved_tensors
        to_product, to_input = gradients
        if to_product is None:
            return to_input, None
        if ctx.needs_input_grad[0]:
            to_input = _to_input(ctx, to_input, to_product.T, hidden.to(x.dtype).T)
        return to_input, (to_product @ _rows(x)).T.to(hidden.dtype)


class HeadsOnOutput(torch.autograd.Function):
    """(linear(x, weight, bias) + x @ A @ wide.T, an alias of x, one of (x @ A).T), for a frozen weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, product: Tensor, weight: Tensor, bias: Tensor | None, wide: Tensor
    ) -> tuple[Tensor, ...]:
        """`product`: (x @ A).T as `InputProduct` makes it; `wide`: (outputs, rank). The dtype is that of x."""
        weight = weight.to(x.dtype)
        ctx.save_for_backward(weight, product, wide)
        return _added_linear(x, weight, bias, product, wide), *_aliases(ctx, x, product)

    @staticmethod
    @_as_forward
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        """Return the gradients of the forward arguments; made of differentiable operations."""
        weight, product, wide = ctx.saved_tensors
        gradient, to_input, to_product = gradients
        if gradient is None:
            return to_input, to_product, None, None, None
        flat = _rows(gradient)
        if ctx.needs_input_grad[0]:
            to_input = _to_input(ctx, to_input, flat, weight)
        if ctx.needs_input_grad[1]:
            to_product = _accumulated(to_product, wide.to(flat.dtype).T, flat.T)
        return to_input, to_product, None, None, (product @ flat).T.to(wide.dtype)


class HeadsOnInput(torch.autograd.Function):
    """linear(x, weight, bias) + (x @ wide) @ hidden.T, for a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *update: Tensor) -> Tensor:
        """`update`: wide (inputs, rank) and hidden (outputs, rank)."""
        wide, hidden = update
        weight, product = weight.to(x.dtype), _product(x, wide)
        ctx.save_for_backward(x, weight, product, *update)
        ctx.device_type = x.device.type
        return _added_linear(x, weight, bias, product, hidden)

    @staticmethod
    @_as_forward
    def backward(ctx: Any, *gradients: Tensor | None) -> Gradients:
        """Return the gradients of the forward arguments; made of differentiable operations."""
        x, weight, product, wide, hidden = ctx.saved_tensors
        (gradient,) = gradients
        assert gradient is not None  # of the only output
        flat, to_input = _rows(gradient), None
        if torch.is_grad_enabled():  # create_graph: second derivatives go through it, and what is kept has no graph
            product = _product(x, wide)
        to_product = hidden.to(x.dtype).T @ flat.T
        if ctx.needs_input_grad[0]:
            to_input = _accumulated(flat @ weight, to_product.T, wide.to(x.dtype).T).view(x.shape)
        to_wide = (to_product @ _rows(x)).T.to(wide.dtype)
        return to_input, None, None, to_wide, (product @ flat).T.to(hidden.dtype)


def _product(x: Tensor, thin: Tensor) -> Tensor:
    """Return (x @ thin).T in the dtype of x."""
    return thin.to(x.dtype).T @ _rows(x).T


def _added_linear(x: Tensor, weight: Tensor, bias: Tensor | None, product: Tensor, up: Tensor) -> Tensor:
    """Return product.T @ up.T + bias + x @ weight.T, added in this order, in the dtype of x, which is the weight's."""
    left, right = product.T, up.to(x.dtype).T
    output = left @ right if bias is None else torch.addmm(bias.to(x.dtype), left, right)
    return output.addmm_(_rows(x), weight.T).view(*x.shape[:-1], -1)


def _aliases(ctx: Any, *values: Tensor) -> tuple[Tensor, ...]:
    """Return the first arguments of an operation for the next reader, and remember what its backward pass needs."""
    ctx.set_materialize_grads(False)
    ctx.device_type, ctx.shape = values[0].device.type, values[0].shape
    aliases = tuple(value.view_as(value) for value in values)
    wanted = zip(aliases, ctx.needs_input_grad, strict=False)
    ctx.mark_non_differentiable(*(alias for alias, needs_gradient in wanted if not needs_gradient))
    return aliases


def _to_input(ctx: Any, gradient: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return gradient + left @ right, of the input's shape."""
    return _accumulated(None if gradient is None else _rows(gradient), left, right).view(ctx.shape)
