"""Where a projection sits in the tensors of LoTR, FacT, CaRA, MetaTT and TensLoRA, and their counts. No torch.

`described` below is the plain mapping that `TensorConfig.geometry` keeps beside the weights: the model's widths, and
for every adapted role the layers that have it. All orders follow the layers and then ROLES, never that of the targets.

Grouped keys and values are narrower than queries. The tensors then have the widths of the ungrouped model, and a shared
head gets the mean of the updates of the query heads it serves, as in LoRTA (ours: no source adapts such models).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lorta.geometry import ROLES, Geometry

ATTENTION = ("q", "k", "v", "o")
READERS = ("q", "k", "v")  # their outputs are divided into heads
WIDTHS = ("hidden", "heads", "kv_heads", "head_dim", "intermediate")


def describe(geometry: Geometry, layers: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return `described` for the layers in which each role is adapted."""
    description: dict[str, Any] = {name: getattr(geometry, name) for name in WIDTHS}
    return description | {"layers": {role: sorted(layers[role]) for role in ROLES if role in layers}}


def describe_all(geometry: Geometry, projections: Sequence[str]) -> dict[str, Any]:
    """Return `described` for roles that are adapted in every layer."""
    paths = {role: geometry.architecture.paths(role) for role in geometry.roles(projections)}
    return describe(
        geometry, {role: range(sum(geometry.stack_sizes[: len(of_role)])) for role, of_role in paths.items()}
    )


def roles_of(described: Mapping[str, Any]) -> list[str]:
    """Return the adapted roles in canonical order; a saved mapping has lost it."""
    return [role for role in ROLES if role in described["layers"]]


def layers_of(described: Mapping[str, Any]) -> list[int]:
    """Return the adapted layers, rising: the rows of a mode of layers."""
    return sorted({layer for layers in described["layers"].values() for layer in layers})


def slots_of(described: Mapping[str, Any], roles: Sequence[str]) -> list[tuple[int, str]]:
    """Return (layer, role) of every adapted projection among `roles`, layer by layer: one slice of the tensor each."""
    pairs = [(layer, role) for role in roles_of(described) if role in roles for layer in described["layers"][role]]
    return sorted(pairs, key=lambda pair: (pair[0], ROLES.index(pair[1])))


def widths(described: Mapping[str, Any], role: str, grouped: bool = False) -> tuple[int, int]:
    """Return (inputs, outputs) of a projection: of the ungrouped model, or `grouped`, as the module has them."""
    hidden, inner = described["hidden"], described["intermediate"]
    heads = described["kv_heads"] if grouped and role in ("k", "v") else described["heads"]
    divided = heads * described["head_dim"]
    if role in READERS:
        return hidden, divided
    return {"o": (divided, hidden), "down": (inner, hidden)}.get(role, (hidden, inner))


def common_widths(method: str, described: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (inputs, outputs) that all adapted projections have. Raises ValueError where they differ."""
    widths_of = {role: widths(described, role) for role in roles_of(described)}
    first = next(iter(widths_of.values()))
    for role, sides in widths_of.items():
        if sides != first:
            raise ValueError(
                f"{method} shares its factors between projections of one size, but {roles_of(described)[0]} has "
                f"{first[0]} inputs and {first[1]} outputs and {role} has {sides[0]} and {sides[1]}: "
                f"take one of them out of the projections."
            )
    return first


def rectangle(method: str, described: Mapping[str, Any]) -> tuple[int, int]:
    """Return (layers, matrices) of a tensor with a mode for each. Raises ValueError unless each pair is adapted."""
    layers, roles = layers_of(described), roles_of(described)
    if foreign := [role for role in roles if role not in ATTENTION]:
        raise ValueError(f"{method} adapts the projections {', '.join(ATTENTION)}, not {', '.join(foreign)}.")
    missing = [role for role in roles if described["layers"][role] != layers]
    if missing:
        raise ValueError(
            f"{method} has one mode for layers and one for projections, but {missing[0]} is not adapted in each of the "
            f"layers {layers}. Select the same projections in each layer."
        )
    return len(layers), len(roles)


def block_widths(method: str, described: Mapping[str, Any], roles: Sequence[str]) -> tuple[int, int]:
    """Return (inputs, outputs) of the blocks into which projections are cut: the smallest widths among `roles`.

    Raises ValueError where a projection is no whole number of blocks.
    """
    sides = {role: widths(described, role) for role in roles_of(described) if role in roles}
    inputs, outputs = (min(pair[side] for pair in sides.values()) for side in (0, 1))
    for role, (wide, high) in sides.items():
        if wide % inputs or high % outputs:
            raise ValueError(
                f"{method} cuts projections into blocks of {inputs} inputs and {outputs} outputs, but {role} has "
                f"{wide} and {high}: take {role} out of the projections."
            )
    return inputs, outputs


def block_grid(described: Mapping[str, Any], role: str, block: tuple[int, int]) -> tuple[int, int]:
    """Return how many blocks a projection has along (inputs, outputs)."""
    inputs, outputs = widths(described, role)
    return inputs // block[0], outputs // block[1]


def first_blocks(
    described: Mapping[str, Any], roles: Sequence[str], block: tuple[int, int]
) -> dict[tuple[int, str], int]:
    """Return the number of the first block of every slot, and at (-1, "") how many blocks there are."""
    blocks, count = {}, 0
    for slot in slots_of(described, roles):
        blocks[slot] = count
        across, along = block_grid(described, slot[1], block)
        count += across * along
    return blocks | {(-1, ""): count}


def lotr_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return LoTR's count, r (d_in + d_out) + slots r^2; with `separate` the first term is summed over projections.

    Raises ValueError, one sentence, for a model it cannot attach to; so do the functions below.
    """
    described, rank = describe_all(geometry, projections), int(config["r"])
    if config.get("separate"):
        sides = sum(sum(widths(described, role, grouped=True)) for role in roles_of(described))
    else:
        sides = sum(common_widths("LoTR", described))
    return rank * sides + rank**2 * len(slots_of(described, ROLES))


def fact_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return FacT's count, with n blocks in all: r (d_in + d_out) + n r^2 as a train, ... + n r + r^3 as Tucker."""
    described, rank = describe_all(geometry, projections), int(config["r"])
    block = block_widths("FacT", described, ROLES)
    blocks = first_blocks(described, ROLES, block)[-1, ""]
    return rank * sum(block) + (blocks * rank**2 if config["form"] == "tt" else blocks * rank + rank**3)


def cara_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return CaRA's count: r (slots + d + H + d/H + 1) for q, k, v, r (blocks + 2 d + 1) and biases for the others."""
    described, rank = describe_all(geometry, projections), int(config["r"])
    readers, others = cara_parts(described)
    count = 0
    if readers:
        sides = described["hidden"] + described["heads"] + described["head_dim"]
        count += rank * (len(slots_of(described, readers)) + sides + 1)
    if others:
        block = cara_block(described)
        count += rank * (first_blocks(described, others, block)[-1, ""] + sum(block) + 1)
        count += sum(widths(described, role)[1] for role in others)
    return count


def cara_parts(described: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return (roles in the tensor of attention, roles in the second tensor)."""
    roles = roles_of(described)
    return [role for role in roles if role in READERS], [role for role in roles if role not in READERS]


def cara_block(described: Mapping[str, Any]) -> tuple[int, int]:
    """Return (inputs, outputs) of the second tensor's blocks, which are transposed in `down`: square if it is there."""
    others = cara_parts(described)[1]
    block = block_widths("CaRA", described, others)
    if "down" in others and block[0] != block[1]:
        raise ValueError(f"CaRA needs square blocks for down, not {block}: take down out of the projections.")
    for role in others:
        across, along = block_grid(described, role, block)
        if along > 1 and (across > 1 or role == "down"):
            raise ValueError(
                f"CaRA lays blocks of {block[0]} x {block[1]} side by side in one direction, and {role} has {across} x "
                f"{along} of them: take {role} out of the projections."
            )
    return block


def metatt_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return MetaTT's count: r (d_in + d_out) + r^2 (L + M) in 4D, r (d_in + d/H) + r^2 (L + M + H) in 5D."""
    described, rank = describe_all(geometry, projections), int(config["r"])
    inputs, outputs = common_widths("MetaTT", described)
    middle = sum(rectangle("MetaTT", described))
    if config["order"] == "5d":
        heads = described["heads"]
        return rank * (inputs + outputs // heads) + rank**2 * (middle + heads)
    return rank * (inputs + outputs) + rank**2 * middle


def tenslora_parameters(geometry: Geometry, config: Mapping[str, Any], projections: Sequence[str]) -> int:
    """Return TensLoRA's count: for every tensor its mode sizes times their ranks, and in Tucker form the core."""
    described = describe_all(geometry, projections)
    tensors, sizes = tenslora_modes(described, config["modes"])
    ranks = tenslora_ranks(config["factorization"], len(sizes), int(config["r"]), config.get("ranks"))
    core = 1
    for rank in ranks:
        core *= rank
    factors = sum(size * rank for size, rank in zip(sizes.values(), ranks, strict=True))
    return tensors * (factors + (core if config["factorization"] == "tucker" else 0))


def tenslora_modes(described: Mapping[str, Any], modes: str) -> tuple[int, dict[str, int]]:
    """Return (how many tensors there are, size of every mode in the order of the core) for stacked `modes`."""
    inputs, outputs = common_widths("TensLoRA", described)
    layers, matrices = rectangle("TensLoRA", described)
    stacked, heads = modes.split("_"), described["heads"]
    out = {"head_dim": outputs // heads, "heads": heads} if "att" in stacked else {"output": outputs}
    sizes = {"input": inputs} | out
    tensors = 1
    for name, mode, size in (("qkv", "matrices", matrices), ("depth", "layers", layers)):
        if name in stacked:
            sizes[mode] = size
        else:
            tensors *= size
    return tensors, sizes


def tenslora_ranks(factorization: str, modes: int, rank: int, ranks: Sequence[int] | None) -> list[int]:
    """Return the rank of every mode. Raises ValueError for a list that does not fit."""
    if not ranks:
        return [rank] * modes
    if factorization == "cp":
        raise ValueError("TensLoRA: a CP factorization has one rank for all modes; leave ranks unset and set r.")
    if len(ranks) != modes:
        raise ValueError(f"TensLoRA: ranks needs one number for each of the {modes} modes, got {list(ranks)}.")
    return [int(value) for value in ranks]
