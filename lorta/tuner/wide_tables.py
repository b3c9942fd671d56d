"""The wide matrices of all layers, made together in a forward pass that is to be trained.

A layer's wide matrix, (heads * head_dim, rank), is a product of a few rows of the factors. Made layer by layer, these
small operations are a quarter of what LoRTA adds to a step of few tokens; on a GPU each is a launch of its own. Layers
find the results through a context variable, which is set in this thread while `LortaModel.forward` runs and at no other
time: a layer that is called by itself makes its own, and so does one that gradient checkpointing repeats.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from lorta.tuner.factors import Factors, Position, rows_per_head, take, wide

Layers = Mapping[Position, Sequence[int]]  # a position with layer row 0 -> the layer rows that are adapted like it
_CURRENT: ContextVar["WideTables | None"] = ContextVar("wide_tables", default=None)


class WideTables:
    """What the layers of a model share in one forward pass."""

    def __init__(self, hidden: nn.ParameterDict, layers: Mapping[tuple[str, float], Layers]) -> None:
        """Take the model's container of a factor, by which layers know it, and where (adapter, scaling) acts."""
        self.hidden, self.layers = hidden, layers
        self._made: dict[tuple[Any, ...], dict[int, tuple[Tensor, ...]]] = {}

    def find(
        self, adapter: str, scaling: float, position: Position, dtype: torch.dtype, factors: Callable[[], Factors]
    ) -> tuple[Tensor, ...] | None:
        """Return the wide matrix of each projection of a position, None for a position that the model did not give."""
        kind = position._replace(layer_row=0)
        key = (adapter, scaling, kind, dtype)
        if key not in self._made:
            rows = self.layers.get((adapter, scaling), {}).get(kind, ())
            made = zip(rows, all_wide(factors(), kind, rows, scaling, dtype), strict=True) if rows else ()
            self._made[key] = dict(made)
        return self._made[key].get(position.layer_row)


@contextmanager
def wide_tables(tables: WideTables) -> Iterator[None]:
    """Let layers find what is made of these factors, within the block."""
    token = _CURRENT.set(tables)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current(hidden: nn.ParameterDict) -> WideTables | None:
    """Return the tables of the forward pass of a model with these factors, None where layers have to make their own.

    Under saved-tensor hooks, such as those of gradient checkpointing, a layer has to save as much when it is repeated.
    """
    tables = _CURRENT.get()
    if tables is None or tables.hidden is not hidden or not torch.is_grad_enabled():
        return None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
    return tables if hooks is None else None


def all_wide(
    factors: Factors, kind: Position, layer_rows: Sequence[int], scaling: float, dtype: torch.dtype
) -> list[tuple[Tensor, ...]]:
    """Return for each layer the wide matrix of each projection of the fifth-order tensor, in the dtype of products."""
    layers, matrices = take(factors["layers"], layer_rows), take(factors["matrices"], kind.matrix_rows)
    # multiplied in the order in which a layer by itself does it, so that no bit differs
    product = scaling * matrices[:, None] * layers[:, None, None] * factors["heads"]  # (layers, projections, heads, r)
    parts: list[Sequence[Tensor]] = []
    for heads, members in itertools.groupby(range(len(kind.heads)), kind.heads.__getitem__):
        alike = list(members)
        rows = rows_per_head(take(product, alike, dim=1).flatten(0, 1), heads)
        matrices_alike = wide(rows, factors["head_dim"]).to(dtype).unbind(0)
        parts += [matrices_alike[number :: len(alike)] for number in range(len(alike))]
    return list(zip(*parts, strict=True))
