"""MetaTT: the updates of all layers and projections as one tensor train.

    4d:  update[input, output] of (l, m) = alpha * first @ layers[l] @ matrices[m] @ last
    5d:  columns of head h               = alpha * first @ layers[l] @ matrices[m] @ heads[h] @ last

with first (inputs, r), layers (L, r, r), matrices (M, r, r), heads (H, r, r), last (r, outputs), in 5d (r, head_dim).
`Sweeps` lowers the rank while training as the density matrix renormalisation group (DMRG) does: neighbouring cores are
contracted, and split again by an SVD of which the largest values are kept.

Source: Lopez-Piqueres et al. 2025, arXiv:2506.09105. Of the paper only the abstract and opening were reached, and no
code: the formula and the sizes agree with its quoted counts; the start (first core 0, the others identities), alpha and
the details of a sweep (one pass to the right that makes cores orthogonal, one to the left that truncates; singular
values to the left; moments of all cores cleared) are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from baselines.tensor.family import Factors, Pair, TensorConfig, TensorLinear, TensorModel
from baselines.tensor.places import common_widths, layers_of, rectangle, roles_of
from lorta.peft_extension.registry import register_tuner

CORES = {"4d": ("first", "layers", "matrices", "last"), "5d": ("first", "layers", "matrices", "heads", "last")}


@dataclass
class MetattConfig(TensorConfig):
    """MetaTT settings."""

    order: str = "4d"  # or "5d", with a core for heads
    alpha: float = 1.0
    init: str = "identity"  # of all cores but the first, or "normal", which tells layers and projections apart at once
    sweeps: list[list[int]] | None = None  # [epoch, rank from its end on]; done by `Sweeps`

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("order", tuple(CORES))
        self.require("init", ("identity", "normal"))

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.alpha


class MetattLinear(TensorLinear):
    """A linear layer with MetaTT updates; `dropout` is on its input."""

    prefix = "metatt_"
    adapter_layer_names = tuple(f"metatt_{name}" for name in CORES["5d"])

    @staticmethod
    def pair(config: MetattConfig, factors: Factors, role: str, rows: tuple[int, int]) -> Pair:
        """Return (first core, all others contracted); `rows`: of the layer and of the projection."""
        middle = factors["layers"][rows[0]] @ factors["matrices"][rows[1]]
        if config.order == "4d":
            return factors["first"], (middle @ factors["last"]).T
        per_head = middle @ factors["heads"] @ factors["last"]
        return factors["first"], per_head.transpose(1, 2).flatten(0, 1)


class MetattModel(TensorModel):
    """A model with MetaTT adapters."""

    prefix = MetattLinear.prefix
    tuner_layer_cls = MetattLinear
    title = "MetaTT"
    default_roles = ("q", "v")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(_take_saved_rank)

    @staticmethod
    def check(config: MetattConfig, described: Mapping[str, Any]) -> None:
        """Raise ValueError for projections that make no tensor."""
        common_widths("MetaTT", described)
        rectangle("MetaTT", described)

    @staticmethod
    def rows_of(config: MetattConfig, layer: int, role: str) -> tuple[int, int]:
        """Return (row of the layer, row of the projection)."""
        return layers_of(config.described).index(layer), roles_of(config.described).index(role)

    @staticmethod
    def initial(config: MetattConfig) -> dict[str, Tensor]:
        """Return the cores; the first one, and with it the update, starts at 0."""
        described, rank = config.described, config.r
        inputs, outputs = common_widths("MetaTT", described)
        layers, matrices = rectangle("MetaTT", described)
        sizes = {"layers": layers, "matrices": matrices}
        if config.order == "5d":
            sizes["heads"] = described["heads"]
            outputs //= described["heads"]
        cores = {"first": torch.zeros(inputs, rank)}
        if config.init == "normal":
            cores |= {name: torch.randn(size, rank, rank) * rank**-0.5 for name, size in sizes.items()}
            return cores | {"last": torch.randn(rank, outputs) * rank**-0.5}
        cores |= {name: torch.eye(rank).repeat(size, 1, 1) for name, size in sizes.items()}
        return cores | {"last": torch.eye(rank, outputs)}


def _take_saved_rank(model: MetattModel, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Before loading: give the cores the saved sizes, since a sweep may have changed the rank in between."""
    for name in model.tuner_layer_cls.adapter_layer_names:
        for adapter, core in getattr(model, name).items():
            saved = state.get(f"{prefix}{name}.{adapter}")
            if saved is not None and saved.shape != core.shape:
                core.data = core.data.new_empty(saved.shape)
                if name == "metatt_first":
                    cast(MetattConfig, model.peft_config[adapter]).r = saved.shape[1]


def compress(cores: list[Tensor], rank: int) -> list[Tensor]:
    """Return the same train of (left, size, right) cores with all inner ranks at most `rank`.

    The squared error, over all entries of the tensor, is at most the sum of the squared singular values left out, which
    is 0 for a tensor of that rank. Source: Oseledets 2011, algorithm 2 (TT-rounding).
    """
    cores = list(cores)
    for position in range(len(cores) - 1):  # to the right: orthogonal columns, so that cutting is optimal
        left, size, _ = cores[position].shape
        orthogonal, rest = torch.linalg.qr(cores[position].flatten(0, 1))
        cores[position] = orthogonal.view(left, size, -1)
        cores[position + 1] = torch.tensordot(rest, cores[position + 1], dims=1)
    for position in range(len(cores) - 1, 0, -1):
        left, right = cores[position - 1], cores[position]
        pair = torch.tensordot(left, right, dims=1)
        u, values, v = torch.linalg.svd(pair.flatten(2).flatten(0, 1), full_matrices=False)
        kept = min(rank, len(values))
        cores[position - 1] = (u[:, :kept] * values[:kept]).view(*left.shape[:2], kept)
        cores[position] = v[:kept].view(kept, *right.shape[1:])
    return cores


@torch.no_grad()
def sweep(model: MetattModel, adapter: str, rank: int) -> list[torch.nn.Parameter]:
    """Lower the rank of one adapter in place; return its cores. Raises ValueError for a rank that cannot be reached."""
    config = cast(MetattConfig, model.peft_config[adapter])
    chain = {name: getattr(model, model.prefix + name)[adapter] for name in CORES[config.order]}
    largest = min(config.r, *chain["first"].shape, *chain["last"].shape)
    if not 1 <= rank <= largest:
        raise ValueError(f"MetaTT sweeps: the rank must be from 1 to {largest}, got {rank}.")
    train = [
        chain["first"][None],
        *(core.transpose(0, 1) for core in list(chain.values())[1:-1]),
        chain["last"][..., None],
    ]
    cores = compress([core.double() for core in train], rank)
    cores = [cores[0][0], *(core.transpose(0, 1) for core in cores[1:-1]), cores[-1][..., 0]]
    for parameter, core in zip(chain.values(), cores, strict=True):
        parameter.data, parameter.grad = core.to(parameter.dtype).contiguous(), None
    config.r = rank
    return list(chain.values())


class Sweeps(TrainerCallback):
    """Lowers MetaTT's rank at the end of the epochs that `sweeps` names, and clears the optimizer's moments."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.ranks = {int(epoch): int(rank) for epoch, rank in config.get("sweeps") or ()}

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Sweep, if one is due."""
        rank = self.ranks.get(round(state.epoch or 0))
        if rank is None:
            return
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        moments = getattr(optimizer, "optimizer", optimizer).state  # accelerate wraps the optimizer
        for core in sweep(model.base_model, model.active_adapter, rank):
            moments.pop(core, None)

    def state_dict(self, model: Any) -> dict[str, Any]:
        """Return the rank after the sweeps so far, for a checkpoint."""
        return {"rank": model.peft_config[model.active_adapter].r}

    def load_state_dict(self, state: dict[str, Any], model: Any) -> None:
        """Go on from a checkpoint, whose cores are in the model already."""
        model.peft_config[model.active_adapter].r = state["rank"]


register_tuner("metatt", MetattConfig, MetattModel, MetattModel.prefix)
