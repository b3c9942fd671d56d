"""What LoTR, FacT, CaRA, MetaTT and TensLoRA have in common as PEFT tuners: settings, targets, and joining of slices.

A method gives the factors of its tensors (`TensorModel.initial`), the rows of one projection in them (`rows_of`), and
how they contract to the projection's low-rank update (`TensorLinear.pair`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from baselines.tensor.places import describe, describe_all, widths
from lorta.geometry import Geometry
from lorta.peft_extension.config import ExternalConfig
from lorta.peft_extension.shared_factors import SharedFactorLinear, SharedFactorModel, features

Pair = tuple[Tensor, Tensor]  # (inputs, rank) and (outputs, rank): the update is up @ down.T
Factors = Mapping[str, Tensor]


@dataclass
class TensorConfig(ExternalConfig):
    """Settings of every method, with PEFT's names where it has one. Raises ValueError for a value out of range."""

    r: int = 8
    target_modules: list[str] | str | None = None  # by default the method's own projections of a known architecture
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None  # as in PEFT: only beside a list of target_modules
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    dropout: float = 0.0
    geometry: dict[str, Any] | None = None  # what the factor rows stand for; written when the adapter is attached

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = type(self).__name__.removesuffix("Config").upper()
        if isinstance(self.target_modules, list | set | tuple):
            self.target_modules = sorted(self.target_modules)
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 1:
            raise ValueError(f"{type(self).__name__}.r must be a whole number of at least 1, got {self.r!r}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"{type(self).__name__}.dropout must be at least 0 and below 1, got {self.dropout!r}.")

    def require(self, name: str, choices: tuple[str, ...]) -> None:
        """Raise ValueError unless a setting is one of the choices."""
        if getattr(self, name) not in choices:
            raise ValueError(
                f"{type(self).__name__}.{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}."
            )

    @property
    def described(self) -> dict[str, Any]:
        """`geometry` of an attached adapter, see `tensor_places`."""
        if self.geometry is None:
            raise ValueError(f"this {type(self).__name__} is not attached to a model yet, so it has no geometry.")
        return self.geometry

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        raise NotImplementedError


class Position(NamedTuple):
    """Where the projections of one module sit."""

    config: TensorConfig
    roles: tuple[str, ...]  # several in a fused module
    rows: tuple[Any, ...]  # of each role, as `rows_of` gave them
    by_head: bool  # in a fused module: q, k, v of one head, then of the next, as in GPT-NeoX


class TensorLinear(SharedFactorLinear):
    """A wrapped linear layer whose update is a slice of the shared tensors. A subclass names its factors."""

    prefix: ClassVar[str]

    @staticmethod
    def pair(config: Any, factors: Factors, role: str, rows: Any) -> Pair:
        """Return (down, up) of one projection of the ungrouped model, without scaling."""
        raise NotImplementedError

    def named_factors(self, adapter: str, device: torch.device | None = None) -> dict[str, Tensor]:
        """Return an adapter's factors by their names in the method."""
        return {name.removeprefix(self.prefix): factor for name, factor in self.factors(adapter, device).items()}

    def low_rank_pair(self, adapter: str, device: torch.device | None = None) -> Pair:
        """Return (down, up) of the layer's update `up @ down.T`; the scaling is in `up`."""
        position, factors = self.position[adapter], self.named_factors(adapter, device)
        described, pairs = position.config.described, []
        for role, rows in zip(position.roles, position.rows, strict=True):
            down, up = self.pair(position.config, factors, role, rows)
            pairs.append((down, _average_groups(up, described, role)))
        down, up = _join(pairs)
        if position.by_head:
            up = up.unflatten(0, (len(pairs), described["heads"], -1)).transpose(0, 1).flatten(0, 2)
        return down, self.scaling[adapter] * up


def _average_groups(up: Tensor, described: Mapping[str, Any], role: str) -> Tensor:
    """Average the rows of the query heads that share a key and value head, where `up` has the ungrouped width."""
    outputs = widths(described, role, grouped=True)[1]
    if len(up) == outputs:
        return up
    return up.reshape(described["kv_heads"], -1, described["head_dim"], up.shape[1]).mean(dim=1).flatten(0, 1)


def _join(pairs: list[Pair]) -> Pair:
    """Return one pair for projections that read the same input, their outputs one after the other."""
    downs, ups = [down for down, _ in pairs], [up for _, up in pairs]
    if len(pairs) == 1:
        return pairs[0]
    if all(down is downs[0] for down in downs):
        return downs[0], torch.cat(ups)
    return torch.cat(downs, dim=1), torch.block_diag(*ups)  # pyright: ignore[reportUnknownMemberType]


class TensorModel(SharedFactorModel):
    """A base model with adapters of one method. A subclass gives `initial`, `rows_of` and `check`."""

    title: ClassVar[str]  # the method's name in messages
    default_roles: ClassVar[tuple[str, ...]]

    @staticmethod
    def check(config: Any, described: Mapping[str, Any]) -> None:
        """Raise ValueError, one sentence, for projections that do not make the method's tensor."""
        raise NotImplementedError

    @staticmethod
    def rows_of(config: Any, layer: int, role: str) -> Any:
        """Return the rows of one projection, in whatever form `TensorLinear.pair` takes them."""
        raise NotImplementedError

    @staticmethod
    def initial(config: Any) -> dict[str, Tensor]:
        """Return new float32 factors by their names in the method."""
        raise NotImplementedError

    def initial_factors(self, config: TensorConfig, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return new factors by container name."""
        with torch.device("cpu"):
            return {self.prefix + name: factor.to(dtype) for name, factor in self.initial(config).items()}

    def position_of(self, config: TensorConfig, path: str) -> Position:
        """Return where the projections in the module of this path sit."""
        layer, roles = self._locate(path)
        rows = tuple(self.rows_of(config, layer, role) for role in roles)
        by_head = len(roles) > 1 and self.geometry.architecture.fused == "heads"
        return Position(config, roles, rows, by_head)

    def scaling_of(self, config: TensorConfig) -> float:
        """Return what the update is multiplied by."""
        return config.scaling

    def _locate(self, path: str) -> tuple[int, tuple[str, ...]]:
        place = self.geometry.locate(path)
        if place is None:
            raise ValueError(
                f"{self.title} adapts projections, but target_modules also selects {path}. Leave target_modules unset "
                f"to adapt {', '.join(self.default_roles)} of a {self.geometry.model_type} model."
            )
        return place

    def _prepare_adapter_config(self, peft_config: TensorConfig, model_config: dict[str, Any]) -> TensorConfig:
        if peft_config.target_modules is None:
            geometry = Geometry.from_config(model_config)
            known = [role for role in self.default_roles if role in geometry.architecture.modules]
            self._check_default(peft_config, geometry, known)
            peft_config.target_modules = geometry.target_regex(known)
        return peft_config

    def _check_default(self, config: TensorConfig, geometry: Geometry, roles: list[str]) -> None:
        """Raise ValueError that says whose choice the projections are, where the method's own do not fit the model."""
        try:
            self.check(config, describe_all(geometry, roles))
        except ValueError as error:
            raise ValueError(
                f"target_modules is not set, so {self.title} takes {', '.join(roles)} of a {geometry.model_type} "
                f"model. {error} To do so, set target_modules: those of q, k, v and o, say."
            ) from error

    def describe_targets(self, paths: list[str]) -> dict[str, Any]:
        """Return what the factor rows stand for. Raises ValueError for a module that is no projection."""
        layers: dict[str, list[int]] = {}
        for path in paths:
            layer, roles = self._locate(path)
            for role in roles:
                layers.setdefault(role, []).append(layer)
        return describe(self.geometry, layers)

    def check_targets(
        self, config: TensorConfig, described: Mapping[str, Any], targets: Mapping[str, nn.Module]
    ) -> None:
        """Raise TypeError for a target that is not linear, ValueError for what does not make the method's tensor."""
        self.check(config, described)
        for path, module in targets.items():
            self._check_shape(described, path, module)

    def _check_shape(self, described: Mapping[str, Any], path: str, module: nn.Module) -> None:
        try:
            shape = features(module.get_base_layer() if isinstance(module, BaseTunerLayer) else module)
        except TypeError as error:
            raise TypeError(f"{self.title} adapts linear layers; {path}: {error}") from error
        sides = [widths(described, role, grouped=True) for role in self._locate(path)[1]]
        needed = sides[0][0], sum(outputs for _, outputs in sides)
        if shape != needed:
            raise ValueError(f"{path} has {shape} inputs and outputs, but the model's configuration says {needed}.")
