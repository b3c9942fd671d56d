"""A sparse difference of any modules' weights as a PEFT tuner: how Dynamic Subset Tuning is saved and loaded.

Importing this module registers the type, so that `peft.PeftModel.from_pretrained` reads what `save_difference` wrote.
Positions are flat over a module's parameters one after another, in the module's own order; values are the new weights,
not differences: a loaded model equals the trained one bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from safetensors.torch import save_file
from torch import Tensor, nn

from lorta.peft_extension.config import ExternalConfig
from lorta.peft_extension.registry import ExternalTuner, not_finite, register_tuner

PREFIX = "dynamic_subset_"


@dataclass
class DynamicSubsetConfig(ExternalConfig):
    """Which modules differ, and the settings of the run that made them differ."""

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    fraction: float | None = None
    silos: str | None = None
    distance: str | None = None
    moments: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "DYNAMIC_SUBSET"
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # pyright: ignore[reportAttributeAccessIssue] as PEFT does


class DynamicSubsetLayer(nn.Module, BaseTunerLayer):
    """Any module with weights of its own, and for each adapter new values at some of them."""

    adapter_layer_names = ()  # nothing trains here: training happens in the weights themselves
    other_param_names = ("dynamic_subset_indices", "dynamic_subset_values")

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.dynamic_subset_indices: Any = BufferDict(persistent=True)
        self.dynamic_subset_values: Any = BufferDict(persistent=True)
        self.replaced: list[tuple[Tensor, Tensor]] = []  # what each merged adapter has overwritten
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], adapter_name

    def update_layer(self, adapter_name: str) -> None:
        """Add an adapter without a difference."""
        device = next(self.base_layer.parameters()).device
        self.dynamic_subset_indices[adapter_name] = torch.zeros(0, dtype=torch.int32, device=device)
        self.dynamic_subset_values[adapter_name] = torch.zeros(0, device=device)

    @property
    def weight(self) -> Tensor:
        """The weight as the active adapters have it: some models read it past `forward`."""
        return self.tuned()["weight"]

    def tuned(self) -> dict[str, Tensor]:
        """Return the module's parameters with the active adapters' values, the later adapter's on top."""
        flat = _flat(self.base_layer)
        if not (self.disable_adapters or self.merged):
            for name in self.active_adapters:
                if name in self.dynamic_subset_indices:
                    values = self.dynamic_subset_values[name].to(flat.dtype)
                    flat = flat.index_copy(0, self.dynamic_subset_indices[name].long(), values)
        return _split(self.base_layer, flat)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module does with its tuned parameters. Raises ValueError for an adapter for each row."""
        if kwargs.pop("adapter_names", None) is not None:
            raise ValueError(
                "adapter_names: a sparse difference replaces weights of any module for a whole batch, not for single "
                "rows: choose one adapter with set_adapter."
            )
        if self.disable_adapters and self.merged:
            self.unmerge()
        return torch.func.functional_call(self.base_layer, self.tuned(), args, kwargs)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write the values into the module. With `safe_merge`, raises ValueError when one of them is not finite."""
        for name in check_adapters_to_merge(self, adapter_names):
            if name in self.dynamic_subset_indices:
                indices, values = self.dynamic_subset_indices[name].long(), self.dynamic_subset_values[name]
                if safe_merge and not torch.isfinite(values).all():
                    raise ValueError(not_finite(name))
                self.replaced.append((indices, self._write(indices, values)))
                self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put back what merging overwrote, bit for bit."""
        while self.merged_adapters:
            self.merged_adapters.pop()
            self._write(*self.replaced.pop())

    def _write(self, indices: Tensor, values: Tensor) -> Tensor:
        flat = _flat(self.base_layer)
        before = flat[indices]
        for name, weight in _split(self.base_layer, flat.index_copy(0, indices, values.to(flat.dtype))).items():
            self.base_layer.get_parameter(name).copy_(weight)
        return before

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Make room first: only the file knows how many positions there are."""
        for buffers, part in ((getattr(self, name), name) for name in self.other_param_names):
            for adapter in list(buffers):
                tensor = state_dict.get(f"{prefix}{part}.{adapter}")
                if tensor is not None:
                    buffers[adapter] = torch.empty_like(tensor, device=buffers[adapter].device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _get_available_adapters(self) -> set[str]:
        return set(self.dynamic_subset_indices)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's version also casts to the dtype of the base layer, which would round the values
        for buffers in (self.dynamic_subset_indices, self.dynamic_subset_values):
            if adapter_name in buffers:
                buffers[adapter_name] = buffers[adapter_name].to(device or next(self.base_layer.parameters()).device)


class DynamicSubsetModel(ExternalTuner):
    """A model with sparse differences."""

    prefix = PREFIX
    tuner_layer_cls = DynamicSubsetLayer

    def _create_and_replace(
        self,
        peft_config: DynamicSubsetConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        layer = target if isinstance(target, DynamicSubsetLayer) else DynamicSubsetLayer(target, adapter_name)
        layer.update_layer(adapter_name)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)


def _flat(module: nn.Module) -> Tensor:
    """Return a module's own parameters as one vector."""
    return torch.cat([weight.detach().flatten() for weight in module.parameters(recurse=False)])


def _split(module: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """Return `_flat`'s vector as named parameters again."""
    named = dict(module.named_parameters(recurse=False))
    parts = flat.split([weight.numel() for weight in named.values()])
    return {name: part.view_as(named[name]) for name, part in zip(named, parts, strict=True)}


def save_difference(model: nn.Module, seed: Mapping[str, Tensor], config: DynamicSubsetConfig, folder: Path) -> None:
    """Write what differs from the seed, and the modules to save whole, as PEFT's two files."""
    written: dict[str, Tensor] = {}
    targets: list[str] = []
    for path, module in model.named_modules():
        own = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if not own or own[0] not in seed:
            continue
        now = _flat(module)
        before = torch.cat([seed[name].flatten() for name in own]).to(now.device)
        indices = (now != before).nonzero().flatten()
        if indices.numel():
            targets.append(path)
            written[f"base_model.model.{path}.{PREFIX}indices"] = indices.int()
            written[f"base_model.model.{path}.{PREFIX}values"] = now[indices]
    for path, weight in model.named_parameters():
        if path.startswith(tuple(f"{module}." for module in config.modules_to_save or ())):
            written[f"base_model.model.{path}"] = weight.detach().contiguous()
    config.target_modules = targets
    folder.mkdir(parents=True, exist_ok=True)
    save_file(written, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


register_tuner("dynamic_subset", DynamicSubsetConfig, DynamicSubsetModel, PREFIX)
