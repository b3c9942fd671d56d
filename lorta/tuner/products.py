"""The products of LoRTA's forward and backward pass, written so that a training step costs less than LoRA's.

Two things are shared. Projections that read the same input (q, k and v) share x @ A, and their wide matrices are built
together: the first of them does both, the others find the results in `InputGroup`. And a frozen `nn.Linear` and its
update share one autograd node: the base layer's product is added into the update's, and their gradients for the input
into one another, so that no further tensor of that size is made, forward or backward. For that, the members of a group
read the input through one another: each hands an alias of it to the next, and adds its own gradient to the next one's.
"""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorta.tuner.factors import Position


class Pass(NamedTuple):
    """What the first member of a group computed in a forward pass."""

    input: "weakref.ref[Tensor]"
    state: tuple[Any, ...]  # of autograd and of the input, then
    product: Tensor  # x @ A and ones behind it, (*batch, rank + 1)
    wide: list[Tensor]  # of each member, (outputs, rank)
    alias: list[Tensor]  # of the input, for the next member to read it through; one entry
    waiting: set[int]  # members that have not asked yet


class InputGroup:
    """The projections of one layer that read the same input, and what they share in one forward pass.

    A member that asks twice starts a new pass, so that a recomputed forward (gradient checkpointing) repeats the same
    operations and a weight that was changed between two passes is seen. The input is held weakly.
    """

    def __init__(self, position: Position) -> None:
        self.position = position  # of all members as if they were one module
        self._pass: Pass | None = None  # read and replaced as a whole: requests in other threads come in between

    def find(self, x: Tensor, member: int) -> tuple[Tensor, Tensor, list[Tensor]] | None:
        """Return (x @ A and ones, the wide matrix, the alias) of the pass that this input belongs to, or None."""
        known = self._pass
        if known is None or known.input() is not x or known.state != _state(x) or member not in known.waiting:
            return None
        known.waiting.discard(member)
        if not known.waiting:
            self._pass = None  # nothing of a pass outlives it
        return known.product, known.wide[member], known.alias

    def keep(self, x: Tensor, member: int, product: Tensor, wide: list[Tensor], alias: list[Tensor]) -> None:
        """Keep what the first member computed for the others."""
        self._pass = Pass(weakref.ref(x), _state(x), product, wide, alias, set(range(len(wide))) - {member})

    def __getstate__(self) -> dict[str, Any]:
        return vars(type(self)(self.position))


def _state(x: Tensor) -> tuple[Any, ...]:
    """What must not have changed since the first member, beside the input's identity."""
    return x._version, torch.is_grad_enabled(), torch.is_autocast_enabled(x.device.type)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _thin(left: Tensor, right: Tensor) -> Tensor:
    """Return left.T @ right for a right with few columns, as a transpose: up to three times faster on a CPU."""
    return (right.T @ left).T


def _alias(ctx: Any, x: Tensor) -> Tensor:
    """Return the input for the next reader; a gradient comes back through it if the input wants one."""
    ctx.set_materialize_grads(False)
    alias = x.view_as(x)
    if not ctx.needs_input_grad[0]:
        ctx.mark_non_differentiable(alias)
    return alias


def _accumulated(gradient: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """Return gradient + left @ right, in the gradient's memory: only the reader before it gets to see it."""
    if gradient is None:
        return left @ right
    flat = _rows(gradient)
    return flat.addmm(left, right) if torch.is_grad_enabled() else flat.addmm_(left, right)


class InputProduct(torch.autograd.Function):
    """(x @ hidden and ones behind it, an alias of x): (*batch, inputs) and (inputs, rank) to (*batch, rank + 1).

    The ones take the bias of a projection along, which saves two passes over its output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the product, rank-major in memory, and the alias."""
        ctx.save_for_backward(x, hidden)
        return _with_ones(_rows(x), hidden).view(*x.shape[:-1], -1), _alias(ctx, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of x and hidden; made of differentiable operations."""
        x, hidden = ctx.saved_tensors
        gradient, to_alias = gradients
        if gradient is None:
            return to_alias, None
        flat, to_input = _rows(gradient)[:, :-1], None
        if ctx.needs_input_grad[0]:
            to_input = _accumulated(to_alias, flat, hidden.T).view(x.shape)
        return to_input, _thin(_rows(x), flat)


class HeadsOnOutput(torch.autograd.Function):
    """(linear(x, weight, bias) + x @ A @ wide.T, an alias of x), for a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *update: Tensor) -> tuple[Tensor, Tensor]:
        """`update`: product (*batch, rank + 1), as `InputProduct` makes it, and wide (outputs, rank)."""
        product, wide = update
        ctx.save_for_backward(weight, product, wide)
        return _added_linear(x, weight, bias, _rows(product), wide), _alias(ctx, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the forward arguments; made of differentiable operations."""
        weight, product, wide = ctx.saved_tensors
        gradient, to_alias = gradients
        if gradient is None:
            return to_alias, None, None, None, None
        flat, to_input = _rows(gradient), None
        if ctx.needs_input_grad[0]:
            to_input = _accumulated(to_alias, flat, weight).view(*gradient.shape[:-1], -1)
        padded = torch.cat((wide, wide.new_zeros(len(wide), 1)), dim=1)  # nothing wants a gradient of the ones
        to_product = _thin(flat.T, padded).view(product.shape)
        return to_input, None, None, to_product, _thin(flat, _rows(product)[:, :-1])


class HeadsOnInput(torch.autograd.Function):
    """linear(x, weight, bias) + (x @ wide) @ hidden.T, for a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *update: Tensor) -> Tensor:
        """`update`: wide (inputs, rank) and hidden (outputs, rank)."""
        wide, hidden = update
        product = _with_ones(_rows(x), wide)
        ctx.save_for_backward(x, weight, product[:, :-1], wide, hidden)
        return _added_linear(x, weight, bias, product, hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of the forward arguments; made of differentiable operations."""
        x, weight, product, wide, hidden = ctx.saved_tensors
        flat, to_input = _rows(gradient), None
        if torch.is_grad_enabled():  # create_graph: second derivatives go through it, and what is kept has no graph
            product = _rows(x) @ wide
        to_product = _thin(flat.T, hidden)
        if ctx.needs_input_grad[0]:
            to_input = _accumulated(flat @ weight, to_product, wide.T).view(x.shape)
        return to_input, None, None, _thin(_rows(x), to_product), _thin(flat, product)


def _with_ones(x: Tensor, right: Tensor) -> Tensor:
    """Return x @ right with a column of ones behind it, column-major in memory."""
    columns = x.new_ones(right.shape[1] + 1, len(x))
    torch.mm(right.T, x.T, out=columns[:-1])
    return columns.T


def _added_linear(x: Tensor, weight: Tensor, bias: Tensor | None, product: Tensor, up: Tensor) -> Tensor:
    """Return linear(x, weight, bias) + product @ up.T, for a product with ones behind it."""
    output = product[:, :-1] @ up.T if bias is None else product @ torch.cat((up, bias[:, None]), dim=1).T
    return output.addmm_(_rows(x), weight.T).view(*x.shape[:-1], -1)
