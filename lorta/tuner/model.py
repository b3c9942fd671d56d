"""LoRTA as a PEFT tuner: finds the projections, owns the factors and hands every layer its place in the tensor."""

import re
from typing import Any

import torch
from peft import PeftConfig
from torch import nn

from lorta.geometry import Geometry
from lorta.peft_registry import ExternalTuner
from lorta.tuner.config import LortaConfig
from lorta.tuner.factors import MODES, Position, initial_bounds
from lorta.tuner.layer import FACTOR_NAMES, PREFIX, LortaLinear

ATTENTION_ROLES = ("q", "k", "v", "o")  # their order is that of the rows of C_M


class LortaModel(ExternalTuner):
    """A base model with LoRTA adapters. Usually made by `peft.get_peft_model(model, LortaConfig(...))`."""

    prefix = PREFIX
    tuner_layer_cls = LortaLinear
    uses_shared_state = True

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        for name in FACTOR_NAMES:
            setattr(self, name, nn.ParameterDict())

    def _prepare_adapter_config(self, peft_config: LortaConfig, model_config: dict[str, Any]) -> LortaConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = Geometry.from_config(model_config).target_regex(ATTENTION_ROLES)
        return peft_config

    def _prepare_model(self, peft_config: LortaConfig, model: nn.Module) -> None:
        """Check all targets before the first is replaced, and write into the config what the factor rows stand for."""
        geometry = Geometry.from_config(self.get_model_config(model))
        targets = {
            name: module
            for name, module in model.named_modules()
            if name and self._check_target_module_exists(peft_config, name)
        }
        if not targets:
            return  # PEFT's own message says what was looked for
        described = _describe(geometry, list(targets))
        if peft_config.geometry not in (None, described):
            raise ValueError(
                f"this LortaConfig belongs to another model or other targets: it holds {peft_config.geometry}, the "
                f"model has {described}. Load the adapter on the model it was trained on, or make a new LortaConfig."
            )
        for name, module in targets.items():
            _check_shape(_position(peft_config, geometry, described, name), described, name, module)
        peft_config.geometry = described

    @staticmethod
    def _check_target_module_exists(peft_config: LortaConfig, key: str) -> Any:
        matches = ExternalTuner._check_target_module_exists(peft_config, key)
        if not matches or peft_config.layers_to_transform is None:
            return matches
        number = re.search(r"\.(\d+)\.", key)  # PEFT ignores layers_to_transform when target_modules is an expression
        return number is not None and int(number.group(1)) in peft_config.layers_to_transform

    def _create_and_replace(
        self,
        peft_config: LortaConfig,
        adapter_name: str,
        target: nn.Linear | LortaLinear,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        described = peft_config.geometry or {}  # written by _prepare_model, which PEFT calls before
        geometry = Geometry.from_config(self.get_model_config(self.model))
        if isinstance(target, LortaLinear):
            layer = target
        else:
            layer = LortaLinear(target, {name: getattr(self, name) for name in FACTOR_NAMES})
            self._replace_module(parent, target_name, layer, target)
        if adapter_name not in self.lorta_hidden:
            self._create_factors(adapter_name, peft_config, layer.weight)
        position = _position(peft_config, geometry, described, current_key)
        layer.update_layer(adapter_name, peft_config.r, peft_config.alpha, position, peft_config.dropout)

    def _create_factors(self, adapter: str, config: LortaConfig, weight: torch.Tensor) -> None:
        """Draw the factors on the CPU, so that a seed gives the same weights on every device."""
        described = config.geometry or {}
        rows = described | {"layers": len(described["layers"]), "matrices": len(described["roles"])}
        bounds = initial_bounds(config.r, config.init, config.init_scale)
        dtype = torch.promote_types(weight.dtype, torch.float32) if weight.is_floating_point() else torch.float32
        for mode in MODES:
            factor = torch.empty(rows[mode], config.r, dtype=dtype, device="cpu").uniform_(-bounds[mode], bounds[mode])
            getattr(self, PREFIX + mode)[adapter] = nn.Parameter(factor.to(weight.device))

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Keep factors in float32 at least, or take the base weights' dtype when PEFT is told not to autocast."""
        layer = next(module for module in self.model.modules() if isinstance(module, LortaLinear))
        for name in FACTOR_NAMES:
            factor = getattr(self, name)[adapter_name]
            wanted = torch.promote_types(factor.dtype, torch.float32) if autocast_adapter_dtype else layer.weight.dtype
            if wanted.is_floating_point:
                factor.data = factor.data.to(wanted)


def _describe(geometry: Geometry, paths: list[str]) -> dict[str, Any]:
    """Return what the factor rows stand for. Raises ValueError for targets that do not make one tensor."""
    places = [geometry.locate(path) for path in paths]
    wrong = [path for path, place in zip(paths, places, strict=True) if not place or place[1] not in ATTENTION_ROLES]
    if wrong:
        raise ValueError(
            f"LoRTA adapts the attention projections {', '.join(ATTENTION_ROLES)}, but target_modules also selects "
            f"{wrong[0]}. Leave target_modules unset to adapt all four of a {geometry.model_type} model."
        )
    layers = sorted({place[0] for place in places if place})
    roles = [role for role in ATTENTION_ROLES if any(place and place[1] == role for place in places)]
    if len(places) != len(layers) * len(roles):
        raise ValueError(
            f"LoRTA shares one tensor over layers and projections: layers {layers} and projections {roles} make "
            f"{len(layers) * len(roles)} modules, but target_modules and exclude_modules select {len(places)}. "
            f"Select the same projections in each layer."
        )
    return {
        "hidden": geometry.hidden,
        "head_dim": geometry.head_dim,
        "heads": geometry.heads,
        "kv_heads": geometry.kv_heads,
        "layers": layers,
        "roles": roles,
    }


def _position(config: LortaConfig, geometry: Geometry, described: dict[str, Any], path: str) -> Position:
    layer, role = geometry.locate(path) or (-1, "")
    on_output = role != "o" if config.head_side == "natural" else config.head_side == "output"
    heads = described["kv_heads"] if on_output and role in ("k", "v") else described["heads"]
    return Position(described["layers"].index(layer), described["roles"].index(role), heads, on_output)


def _check_shape(position: Position, described: dict[str, Any], path: str, module: nn.Module) -> None:
    """Raise TypeError for a module that is no Linear, ValueError for a shape that does not allow the head side."""
    if not isinstance(module, nn.Linear | LortaLinear):
        raise TypeError(f"LoRTA adapts torch.nn.Linear modules; {path} is a {type(module).__name__}.")
    sides = (described["hidden"], position.heads * described["head_dim"])
    inputs, outputs = sides if position.heads_on_output else sides[::-1]
    if (module.in_features, module.out_features) != (inputs, outputs):
        raise ValueError(
            f"{path} has {module.in_features} inputs and {module.out_features} outputs; with heads on its "
            f"{'output' if position.heads_on_output else 'input'} side LoRTA needs {inputs} and {outputs}. "
            f"Use head_side='natural'."
        )
