"""The updates of a LoRTA adapter summed term by term in float64, straight from the definition, apart from lorta.tuner.

`geometry` is the mapping that the adapter's configuration keeps: hidden, head_dim, heads, kv_heads, layers, roles and,
with a feed-forward role among them, feedforward_heads and feedforward_head_dim. `factors` are named as there, each
with rank as its last axis.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

Factors = Mapping[str, Tensor]
FEEDFORWARD = ("gate", "up", "down")
ON_INPUT = ("o", "down")  # what reads the heads, or the inner width; all others write them


def shapes(order: str, geometry: Mapping[str, Any], rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every factor of an order."""
    roles, layers, d = len(geometry["roles"]), len(geometry["layers"]), geometry["hidden"]
    found: dict[str, tuple[int, ...]] = {
        "5_way": {"hidden": (d,), "layers": (layers,), "matrices": (roles,)},
        "4_way_per_matrix": {"hidden": (roles, d), "layers": (roles, layers)},
        "4_way_per_layer": {"hidden": (layers, d), "matrices": (layers, roles)},
        "3_way_joint": {"hidden": (d,)},
        "3_way_per_matrix": {"hidden": (roles, d)},
    }[order]
    for prefix in ("", "feedforward_"):
        own = len(_own(geometry, prefix))
        if not own:
            continue
        heads, dh = geometry[prefix + "heads"], geometry[prefix + "head_dim"]
        found |= {
            "5_way": {prefix + "head_dim": (dh,), prefix + "heads": (heads,)},
            "4_way_per_matrix": {prefix + "head_dim": (own, dh), prefix + "heads": (own, heads)},
            "4_way_per_layer": {prefix + "head_dim": (layers, dh), prefix + "heads": (layers, heads)},
            "3_way_joint": {prefix + "head_dim": (dh,), prefix + "slices": (own, layers, heads)},
            "3_way_per_matrix": {prefix + "head_dim": (own, dh), prefix + "slices": (own, layers, heads)},
        }[order]
    return {name: (*shape, rank) for name, shape in found.items()}


def role_update(
    order: str, geometry: Mapping[str, Any], factors: Factors, layer: int, role: str, head_side: str = "natural"
) -> Tensor:
    """Return one projection's update in one layer, scaling not included: (outputs, inputs) in float64."""
    prefix = "feedforward_" if role in FEEDFORWARD else ""
    heads, dh, d = geometry[prefix + "heads"], geometry[prefix + "head_dim"], geometry["hidden"]
    on_input = role in ON_INPUT if prefix or head_side == "natural" else head_side == "input"
    written = geometry["kv_heads"] if role in ("k", "v") and not on_input else heads
    share = heads // written  # query heads that read one key and value head
    update = torch.zeros(written * dh, d, dtype=torch.float64)
    for r in range(factors["hidden"].shape[-1]):
        for head in range(heads):
            a, b, c = _component(order, geometry, factors, layer, role, head, r)
            rows = slice(head // share * dh, head // share * dh + dh)
            update[rows] += torch.outer(b.double(), a.double()) * c / share
    return update.T if on_input else update


def module_update(
    order: str,
    geometry: Mapping[str, Any],
    factors: Factors,
    layer: int,
    roles: tuple[str, ...],
    head_side: str = "natural",
    by_head: bool = False,
) -> Tensor:
    """Return the update of a module that holds several projections, one after the other or head by head."""
    parts = [role_update(order, geometry, factors, layer, role, head_side) for role in roles]
    if by_head and len(parts) > 1:
        dh = geometry["head_dim"]
        return torch.cat([part[h * dh : h * dh + dh] for h in range(geometry["heads"]) for part in parts])
    return torch.cat(parts)


def _component(
    order: str, geometry: Mapping[str, Any], f: Factors, layer: int, role: str, h: int, r: int
) -> tuple[Tensor, Tensor, float]:
    """Return (a, b, c): in component r, head h of this projection gets c * outer(b, a)."""
    prefix = "feedforward_" if role in FEEDFORWARD else ""
    own, m = _own(geometry, prefix).index(role), geometry["roles"].index(role)
    l = geometry["layers"].index(layer)  # noqa: E741
    b, head, joint = (f.get(prefix + name) for name in ("head_dim", "heads", "slices"))
    assert b is not None
    if order == "5_way":
        return f["hidden"][:, r], b[:, r], _times(head[h, r], f["layers"][l, r], f["matrices"][m, r])
    if order == "4_way_per_matrix":
        return f["hidden"][m, :, r], b[own, :, r], _times(head[own, h, r], f["layers"][m, l, r])
    if order == "4_way_per_layer":
        return f["hidden"][l, :, r], b[l, :, r], _times(head[l, h, r], f["matrices"][l, m, r])
    if order == "3_way_joint":
        return f["hidden"][:, r], b[:, r], _times(joint[own, l, h, r])
    assert order == "3_way_per_matrix"
    return f["hidden"][m, :, r], b[own, :, r], _times(joint[own, l, h, r])


def _own(geometry: Mapping[str, Any], prefix: str) -> list[str]:
    return [role for role in geometry["roles"] if (role in FEEDFORWARD) == bool(prefix)]


def _times(*values: Tensor) -> float:
    product = 1.0
    for value in values:
        product *= float(value)
    return product
