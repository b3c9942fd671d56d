"""From the modules of a model to the rows of the tensor: what an adapter's factors stand for, and where a module sits.

`described` below is the plain mapping that `LortaConfig.geometry` keeps beside the weights.
"""

from collections.abc import Mapping
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from lorta.geometry import Geometry, largest_divisor
from lorta.peft_extension.shared_factors import features
from lorta.tuner.config import LortaConfig
from lorta.tuner.factors import FACTORS, OWN, Order, Position, factor_axes

ATTENTION_ROLES = ("q", "k", "v", "o")  # their order, and then these, is that of the rows of C_M
FEEDFORWARD_ROLES = ("gate", "up", "down")
OTHER = "feedforward_"


def describe(geometry: Geometry, paths: list[str]) -> dict[str, Any]:
    """Return what the factor rows stand for. Raises ValueError for targets that do not make one tensor."""
    places = [geometry.locate(path) for path in paths]
    wrong = [path for path, place in zip(paths, places, strict=True) if place is None]
    if wrong:
        raise ValueError(
            f"LoRTA adapts the projections {', '.join(ATTENTION_ROLES + FEEDFORWARD_ROLES)}, but target_modules also "
            f"selects {wrong[0]}. Leave target_modules unset to adapt q, k, v and o of a {geometry.model_type} model."
        )
    pairs = [(place[0], role) for place in places if place for role in place[1]]
    for kind in (ATTENTION_ROLES, FEEDFORWARD_ROLES):
        _check_complete([pair for pair in pairs if pair[1] in kind])
    described: dict[str, Any] = {
        "hidden": geometry.hidden,
        "head_dim": geometry.head_dim,
        "heads": geometry.heads,
        "kv_heads": geometry.kv_heads,
        "layers": sorted({layer for layer, _ in pairs}),
        "roles": [role for role in ATTENTION_ROLES + FEEDFORWARD_ROLES if any(role == pair[1] for pair in pairs)],
    }
    if set(FEEDFORWARD_ROLES) & set(described["roles"]):
        width = geometry.intermediate
        blocks = largest_divisor(width, at_most=geometry.heads)
        described |= {OTHER + "heads": blocks, OTHER + "head_dim": width // blocks}
    return described


def _check_complete(pairs: list[tuple[int, str]]) -> None:
    layers, roles = sorted({layer for layer, _ in pairs}), sorted({role for _, role in pairs})
    if len(pairs) != len(layers) * len(roles):
        raise ValueError(
            f"LoRTA shares one tensor over layers and projections: layers {layers} and projections {roles} make "
            f"{len(layers) * len(roles)}, but target_modules and exclude_modules select {len(pairs)} of them. "
            f"Select the same projections in each layer."
        )


def factor_shapes(order: Order, described: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every factor, without its last axis, rank."""
    attention, feedforward = _by_kind(described["roles"])
    common = {"hidden": described["hidden"], "layers": len(described["layers"]), "matrices": len(described["roles"])}
    axes, shapes = factor_axes(order), {}
    for name in FACTORS:
        kind, roles = (OTHER, feedforward) if name.startswith(OTHER) else ("", attention)
        plain = name.removeprefix(OTHER)
        if plain not in axes or (plain in OWN and not roles):
            continue
        sizes = dict(common)
        if plain in OWN:
            sizes |= {"matrices": len(roles)} | {axis: described[kind + axis] for axis in ("heads", "head_dim")}
        shapes[name] = tuple(sizes[axis] for axis in axes[plain])
    return shapes


def position_of(config: LortaConfig, geometry: Geometry, described: Mapping[str, Any], path: str) -> Position:
    """Return the rows that belong to the module of this path."""
    place = geometry.locate(path)
    if place is None:
        raise ValueError(f"{path} is no projection of a {geometry.model_type} model.")
    layer, roles = place
    feedforward = roles[0] in FEEDFORWARD_ROLES
    own = _by_kind(described["roles"])[feedforward]
    on_output = roles[0] != ("down" if feedforward else "o")
    if config.head_side != "natural" and not feedforward:
        on_output = config.head_side == "output"
    return Position(
        layer_row=described["layers"].index(layer),
        matrix_rows=tuple(described["roles"].index(role) for role in roles),
        own_rows=tuple(own.index(role) for role in roles),
        heads=tuple(_heads(described, role, on_output) for role in roles),
        heads_on_output=on_output,
        feedforward=feedforward,
        by_head=len(roles) > 1 and geometry.architecture.fused == "heads",
    )


def joint_position(
    order: Order, position: Position, geometry: Geometry, described: Mapping[str, Any]
) -> Position | None:
    """Return the position of all projections that read this one's input, as one module; None if it reads it alone.

    They share x @ A: q, k and v, or gate and up, unless the order gives each matrix an A of its own.
    """
    roles = described["roles"]
    if order.separate == "matrices" or not position.heads_on_output or len(position.matrix_rows) > 1:
        return None
    attention = ("k", "v") if geometry.crosses(described["layers"][position.layer_row]) else ("q", "k", "v")
    readers = [role for role in roles if role in (("gate", "up") if position.feedforward else attention)]
    if len(readers) < 2 or not {roles[row] for row in position.matrix_rows} <= set(readers):
        return None
    own = _by_kind(roles)[position.feedforward]
    return position._replace(
        matrix_rows=tuple(roles.index(role) for role in readers),
        own_rows=tuple(own.index(role) for role in readers),
        heads=tuple(_heads(described, role, on_output=True) for role in readers),
    )


def check_shape(position: Position, described: Mapping[str, Any], path: str, module: nn.Module) -> None:
    """Raise TypeError for a module that is not linear, ValueError for a shape that does not allow the head side."""
    try:
        shape = features(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module)
    except TypeError as error:
        raise TypeError(f"LoRTA adapts linear layers; {path}: {error}") from error
    if len(position.matrix_rows) > 1 and not position.heads_on_output:
        raise ValueError(f"{path} holds several projections in one module: use head_side='natural' or 'output'.")
    width = sum(position.heads) * described[(OTHER if position.feedforward else "") + "head_dim"]
    sides = (described["hidden"], width)
    needed = sides if position.heads_on_output else sides[::-1]
    if shape != needed:
        raise ValueError(
            f"{path} has {shape[0]} inputs and {shape[1]} outputs; with heads on its "
            f"{'output' if position.heads_on_output else 'input'} side LoRTA needs {needed[0]} and {needed[1]}. "
            f"Use head_side='natural'."
        )


def _by_kind(roles: list[str]) -> tuple[list[str], list[str]]:
    """Return (those of attention, those of the feed-forward block)."""
    return [role for role in roles if role in ATTENTION_ROLES], [role for role in roles if role in FEEDFORWARD_ROLES]


def _heads(described: Mapping[str, Any], role: str, on_output: bool) -> int:
    if role in FEEDFORWARD_ROLES:
        return described[OTHER + "heads"]
    return described["kv_heads"] if on_output and role in ("k", "v") else described["heads"]
