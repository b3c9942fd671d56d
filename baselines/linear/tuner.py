"""What tuners of single linear layers share: the config's targets, the wrapped layer, and putting it in place.

A tuner of this kind gives a `Branch`: the trained weights of one adapter at one layer, and the update they make.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import torch
from peft.utils.quantization_utils import resolve_quantization_backend
from torch import Tensor, nn

from lorta.peft_extension.config import ExternalConfig
from lorta.peft_extension.registry import AdditiveTunerLayer, ExternalTuner


@dataclass
class LinearTunerConfig(ExternalConfig):
    """Which layers are adapted, with PEFT's own names and meanings. Raises ValueError for bad values."""

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # pyright: ignore[reportAttributeAccessIssue] as PEFT does

    def require_at_least(self, smallest: int, *names: str) -> None:
        """Raise ValueError when one of the named fields is below `smallest`."""
        for name in names:
            if getattr(self, name) < smallest:
                raise ValueError(
                    f"{type(self).__name__}.{name} must be at least {smallest}, got {getattr(self, name)}."
                )

    def require_one_of(self, allowed: tuple[str, ...], name: str) -> None:
        """Raise ValueError when the named field holds none of the allowed words."""
        if getattr(self, name) not in allowed:
            raise ValueError(
                f"{type(self).__name__}.{name} must be one of {', '.join(allowed)}, got '{getattr(self, name)}'."
            )


class Branch(Protocol):
    """One adapter at one layer: an `nn.Module` made from the layer's dense weight (outputs, inputs) and the config."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the update (..., outputs) of inputs x (..., inputs), scaling included."""
        ...

    def delta_weight(self) -> Tensor:
        """Return the same update as a matrix (outputs, inputs), without dropout."""
        ...


class BranchLayer(AdditiveTunerLayer):
    """A linear layer and, for each adapter, a branch. A subclass gives `make_branch` and the name of its container."""

    make_branch: ClassVar[Callable[[Tensor, Any], nn.Module]]

    def __init__(self, base_layer: nn.Linear, adapter_name: str, config: LinearTunerConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(base_layer)
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        setattr(self, self.adapter_layer_names[0], nn.ModuleDict())
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], adapter_name
        self.update_layer(adapter_name, config)

    def branch(self, adapter: str) -> Any:
        """Return an adapter's branch."""
        return getattr(self, self.adapter_layer_names[0])[adapter]

    def update_layer(self, adapter_name: str, config: LinearTunerConfig) -> None:
        """Add an adapter, or start it afresh. Its weights are drawn on the CPU: one seed, one start on any device."""
        weight = self.get_base_weight()
        branch = type(self).make_branch(weight, config)
        if not any(parameter.is_meta for parameter in branch.parameters()):  # PEFT loads with little memory
            floating = weight.dtype if weight.is_floating_point() else torch.float32
            # float32 at least: PEFT's own move rounds a start to the base weight's bfloat16 and casts back
            branch = branch.to(weight.device, torch.promote_types(floating, torch.float32))
        getattr(self, self.adapter_layer_names[0])[adapter_name] = branch.train(self.base_layer.training)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True: an update is a matrix, which `peft.convert_to_lora` approximates at a chosen rank."""
        return True

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, scaling included, in the dtype of the adapter's weights."""
        branch = self.branch(adapter)
        return branch(x.to(next(branch.parameters()).dtype))

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return one adapter's update, scaling included, in the base weight's shape (outputs, inputs)."""
        with torch.no_grad():
            return cast(Branch, self.branch(adapter)).delta_weight()


class LinearTuner(ExternalTuner):
    """Puts a `BranchLayer` in the place of every target. A subclass sets `prefix` and `tuner_layer_cls`."""

    def _create_and_replace(
        self,
        peft_config: LinearTunerConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        *,
        parameter_name: str | None = None,
    ) -> None:
        layer_class = cast(type[BranchLayer], self.tuner_layer_cls)
        try:
            if isinstance(target, layer_class):
                target.update_layer(adapter_name, peft_config)
                return
            if not isinstance(target, nn.Linear):
                raise TypeError(
                    f"{peft_config.peft_type} attaches to nn.Linear only, but '{current_key}' is a "
                    f"{type(target).__name__}."
                )
            layer = layer_class(target, adapter_name, peft_config)
        except ValueError as error:
            raise ValueError(f"'{current_key}': {error}") from error
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)  # an additional adapter trains only once it is chosen
        self._replace_module(parent, target_name, layer, target)
