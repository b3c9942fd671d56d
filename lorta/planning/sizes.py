"""The smallest, typical and largest size of a method on a model, by its closed form. No torch."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from lorta.api.peft_adapter import PeftAdapter
from lorta.config.compose import Cell
from lorta.config.instantiate import build
from lorta.geometry import Geometry, ModelContext
from lorta.planning.budget import adapter_count, free_key, solve

VIRTUAL_TOKENS = ("adapter.config.num_virtual_tokens", "adapter.config.tokens")  # knobs without a matrix
LONGEST = 512  # tokens of an input of RoBERTa


class Sizes(NamedTuple):
    """Parameters of a method on one model: at the smallest, the file's own and the largest value of its knob."""

    smallest: int | None
    typical: int | None
    largest: int | None


def sizes_of(cell: Cell, context: ModelContext) -> Sizes:
    """Return the three sizes of a method on a model; None where there is none."""
    method = build(cell.config["adapter"])
    typical = None if method.unsupported(context) else adapter_count(method, context.geometry)
    key = free_key(method)
    if typical is None or key is None:
        return Sizes(typical, typical, typical)

    def count(value: int) -> int | None:  # without norms that are trained besides
        at = build(cell.node("adapter", key, value))
        try:
            return None if at.unsupported(context) else at.parameters(context.geometry)
        except (ValueError, ArithmeticError):  # a value that the method cannot take
            return None

    if key in VIRTUAL_TOKENS:
        return Sizes(count(1), typical, count(LONGEST))
    asked = weights_of(cast(PeftAdapter, method).projections, context.geometry)
    smallest, value = (solve(cell, method, context, weights).value for weights in (1, asked))
    while value and (count(value) or asked + 1) > asked:  # solved is the nearest, which may be above
        value -= 1
    return Sizes(count(smallest) if smallest else typical, typical, count(value) if value else typical)


def weights_of(projections: Sequence[str], geometry: Geometry) -> int:
    """Return how many entries the adapted matrices have."""
    shapes = geometry.module_shapes(geometry.roles(tuple(projections)))
    return sum(inputs * outputs for inputs, outputs in shapes)
