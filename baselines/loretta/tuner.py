"""LoRETTA_rep and LoRETTA_adp as PEFT tuners; importing this module registers them.

rep adds W0 + (alpha / r) A B with A and B tensor trains (mergeable); adp adds h + up(activation(down(h))) behind a
projection (not mergeable). Source: Yang et al. 2024, arXiv:2402.11417, and the released package, loretta 0.1.3.

Neither method starts at the pre-trained model as released: all cores start random, although the paper speaks of taking
the starting noise out of the weights. `init` chooses: "faithful" as released, "subtract_initial_delta" subtracts the
starting branch for ever (frozen copies of its cores travel with the checkpoint), "zero_last_core" zeroes the second
train's last core and bias, as LoRA does with B.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.tuner import LinearTuner
from baselines.loretta.shapes import shape_key, tensor_shape
from baselines.loretta.tensor_train import TensorTrainLinear
from lorta.peft_extension.config import ExternalConfig
from lorta.peft_extension.registry import AdditiveTunerLayer, register_tuner
from lorta.peft_extension.rows import apply_by_row, check_rows

INITS = ("faithful", "subtract_initial_delta", "zero_last_core")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "tanh": torch.tanh}


@dataclass
class LorettaConfig(ExternalConfig):
    """What both variants share, with PEFT's own names and meanings where it has them. Raises ValueError for bad values.

    Normalisation layers, which the method also trains, go into `modules_to_save`.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    tensor_rank: int = 5  # the inner dimension between all cores of a train
    dropout: float = 0.0  # on the input of the branch
    init: str = "faithful"
    shapes: dict[str, list[int]] | None = field(default=None)  # "768x8" -> dimensions; completed when attached

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # pyright: ignore[reportAttributeAccessIssue] as PEFT does
        self._require_positive("tensor_rank")
        if self.init not in INITS:
            raise ValueError(f"{type(self).__name__}.init must be one of {', '.join(INITS)}, got '{self.init}'.")

    def _require_positive(self, name: str) -> None:
        value = getattr(self, name)
        if value < 1:
            raise ValueError(f"{type(self).__name__}.{name} must be at least 1, got {value}.")

    def train(self, inputs: int, outputs: int, bias: bool) -> TensorTrainLinear:
        """Return a new tensor train, and write its dimensions into `shapes` so that a checkpoint carries them."""
        shape = tensor_shape(inputs, outputs, self.shapes)
        self.shapes = {**(self.shapes or {}), shape_key(inputs, outputs): list(shape)}
        keep_start = self.init == "subtract_initial_delta"
        return TensorTrainLinear(inputs, outputs, shape, self.tensor_rank, bias, keep_start)


@dataclass
class LorettaRepConfig(LorettaConfig):
    """LoRETTA_rep: the update is (alpha / r) A B, with A (inputs, r) and B (r, outputs)."""

    r: int = 8  # width between the two trains; the rank of the update
    alpha: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "LORETTA_REP"
        self._require_positive("r")


@dataclass
class LorettaAdpConfig(LorettaConfig):
    """LoRETTA_adp: a bottleneck behind each target, with biases and a residual connection.

    Before those targets whose last name is in `before`: the released mapping puts three into a Llama's layer, before
    gate_proj and up_proj and behind down_proj, where the paper's counts have two.
    """

    bottleneck: int = 64
    before: list[str] | None = None
    activation: str = "relu"  # the experiments' choice; the package's own default is tanh

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "LORETTA_ADP"
        self._require_positive("bottleneck")
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"LorettaAdpConfig.activation must be one of {known}, got '{self.activation}'.")


class Branch(nn.Module):
    """Two tensor trains in a row, (..., inputs) -> (..., outputs), as one adapter has them at one projection."""

    def __init__(self, config: LorettaConfig, inputs: int, width: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.down = config.train(inputs, width, bias)
        self.up = config.train(width, outputs, bias)
        self.dropout = nn.Dropout(config.dropout)
        self.subtracts_start = config.init == "subtract_initial_delta"
        if config.init == "zero_last_core":
            self.up.zero_last_core()

    def forward(self, x: Tensor, activation: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return the branch's output, less that of its starting state if the config says so; in the cores' dtype."""
        x = self.dropout(x.to(self.down.cores[0].dtype))
        output = self._evaluate(x, activation, start=False)
        return output - self._evaluate(x, activation, start=True) if self.subtracts_start else output

    def _evaluate(self, x: Tensor, activation: Callable[[Tensor], Tensor] | None, start: bool) -> Tensor:
        hidden = self.down(x, start)
        return self.up(hidden if activation is None else activation(hidden), start)

    def delta_weight(self) -> Tensor:
        """Return the linear branch's matrix (inputs, outputs), without dropout or scaling."""
        delta = self.down.weight_matrix() @ self.up.weight_matrix()
        if self.subtracts_start:
            delta = delta - self.down.weight_matrix(start=True) @ self.up.weight_matrix(start=True)
        return delta


class LorettaRepLayer(AdditiveTunerLayer):
    """A linear layer and, for each adapter, an additive update of its weight."""

    adapter_layer_names = ("loretta_rep_branch",)
    other_param_names = ("scaling",)

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config: LorettaRepConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.loretta_rep_branch = nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: LorettaRepConfig) -> None:
        """Add an adapter, or start it afresh."""
        base = cast(nn.Linear, self.get_base_layer())
        branch = Branch(config, base.in_features, config.r, base.out_features, bias=False)
        self.loretta_rep_branch[adapter_name] = branch
        self.scaling[adapter_name] = config.alpha / config.r
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return one adapter's update, (outputs, inputs) as the base weight has it, scaling included."""
        branch = cast(Branch, self.loretta_rep_branch[adapter])
        return self.scaling[adapter] * branch.delta_weight().T

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, scaling included."""
        return self.scaling[adapter] * self.loretta_rep_branch[adapter](x)


class LorettaAdpLayer(nn.Module, BaseTunerLayer):
    """A linear layer and, behind or before it, each active adapter's bottleneck with its residual connection."""

    adapter_layer_names = ("loretta_adp_branch",)
    other_param_names = ("activation", "before")

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config: LorettaAdpConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.loretta_adp_branch = nn.ModuleDict()
        self.activation: dict[str, Callable[[Tensor], Tensor]] = {}
        self.before: dict[str, bool] = {}
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: LorettaAdpConfig) -> None:
        """Add an adapter, or start it afresh."""
        base, self.before[adapter_name] = cast(nn.Linear, self.get_base_layer()), bool(config.before)
        width = base.in_features if config.before else base.out_features
        self.loretta_adp_branch[adapter_name] = Branch(config, width, config.bottleneck, width, bias=True)
        self.activation[adapter_name] = ACTIVATIONS[config.activation]
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output, with the active adapters' bottlenecks before and behind it."""
        names = kwargs.pop("adapter_names", None)
        if self.disable_adapters:
            return self.base_layer(x, *args, **kwargs)
        if names is not None:
            check_rows(self, x, names)
        result = self.base_layer(self._through(x, names, before=True), *args, **kwargs)
        return self._through(result, names, before=False)

    def _through(self, x: Tensor, names: list[str] | None, before: bool) -> Tensor:
        """Return x after the bottlenecks that stand before, or behind, the base layer; `names` are those of rows."""

        def bottlenecks(rows: Tensor, adapters: list[str]) -> Tensor:
            for name in adapters:
                if name in self.loretta_adp_branch and self.before[name] == before:
                    rows = rows + self.loretta_adp_branch[name](rows, self.activation[name]).to(rows.dtype)
            return rows

        return bottlenecks(x, self.active_adapters) if names is None else apply_by_row(x, names, bottlenecks)


class LorettaRepModel(LinearTuner):
    """A model with LoRETTA_rep adapters."""

    prefix = "loretta_rep_"
    tuner_layer_cls = LorettaRepLayer


class LorettaAdpModel(LinearTuner):
    """A model with LoRETTA_adp adapters."""

    prefix = "loretta_adp_"
    tuner_layer_cls = LorettaAdpLayer

    def _create_and_replace(
        self,
        peft_config: LorettaAdpConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        *args: Any,
        **more: Any,
    ) -> None:
        placed = copy(peft_config)  # `before` then says whether this one target's bottleneck stands before it
        placed.before = [target_name] if target_name in (peft_config.before or ()) else None
        super()._create_and_replace(cast(Any, placed), adapter_name, target, target_name, *args, **more)
        peft_config.shapes = placed.shapes

    def _check_merge_allowed(self) -> None:
        raise NotImplementedError(
            "LoRETTA_adp cannot be merged: its bottleneck has an activation, so no weight matrix does the same. "
            "Evaluate the model as it is, or use LoRETTA_rep."
        )


register_tuner("loretta_rep", LorettaRepConfig, LorettaRepModel, LorettaRepModel.prefix)
register_tuner("loretta_adp", LorettaAdpConfig, LorettaAdpModel, LorettaAdpModel.prefix)
