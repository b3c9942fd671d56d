"""LoRTA as a PEFT tuner: finds the projections, owns the factors and hands every layer its place in the tensor."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn

from lorta.geometry import Geometry
from lorta.peft_extension.shared_factors import SharedFactorModel
from lorta.tuner.config import LortaConfig
from lorta.tuner.factors import ORDERS, Position, initial_bounds, scaling_factor
from lorta.tuner.layer import HIDDEN, PREFIX, LortaLinear
from lorta.tuner.products import InputGroup
from lorta.tuner.targets import ATTENTION_ROLES, check_shape, describe, factor_shapes, joint_position, position_of
from lorta.tuner.wide_tables import WideTables, wide_tables


class LortaModel(SharedFactorModel):
    """A base model with LoRTA adapters. Usually made by `peft.get_peft_model(model, LortaConfig(...))`."""

    prefix = PREFIX
    tuner_layer_cls = LortaLinear

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        super()._pre_injection_hook(model, config, adapter_name)
        self.input_groups: dict[tuple[Any, ...], InputGroup] = {}
        self.layers_alike: dict[tuple[str, float], dict[Position, list[int]]] = {}  # see WideTables

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the base model; its layers share what is made of all their rows at once, compilers do so themselves."""
        if torch.compiler.is_compiling():
            return super().forward(*args, **kwargs)
        with wide_tables(WideTables(getattr(self, HIDDEN), self.layers_alike)):
            return super().forward(*args, **kwargs)

    def _prepare_adapter_config(self, peft_config: LortaConfig, model_config: dict[str, Any]) -> LortaConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = Geometry.from_config(model_config).target_regex(ATTENTION_ROLES)
        return peft_config

    def describe_targets(self, paths: list[str]) -> dict[str, Any]:
        """Return what the factor rows stand for. Raises ValueError for targets that do not make one tensor."""
        return describe(self.geometry, paths)

    def check_targets(
        self, config: LortaConfig, described: Mapping[str, Any], targets: Mapping[str, nn.Module]
    ) -> None:
        """Raise TypeError for a target that is not linear, ValueError for a shape that does not allow the head side."""
        for path, module in targets.items():
            check_shape(position_of(config, self.geometry, described, path), described, path, module)

    @staticmethod
    def _check_target_module_exists(peft_config: LortaConfig, key: str) -> Any:
        matches = SharedFactorModel._check_target_module_exists(peft_config, key)
        if not matches or peft_config.layers_to_transform is None:
            return matches
        names = peft_config.layers_pattern or r"[^.]+"
        names = names if isinstance(names, str) else "|".join(names)
        # PEFT ignores both settings when target_modules is an expression
        number = re.search(rf"(?:^|\.)(?:{names})\.(\d+)\.", key)
        return number is not None and int(number.group(1)) in peft_config.layers_to_transform

    def initial_factors(self, config: LortaConfig, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return new factors; head_dim, and with it the update, starts at 0."""
        bounds = initial_bounds(config.r, config.init, config.init_scale)
        shapes = factor_shapes(ORDERS[config.order], config.geometry or {})
        return {
            PREFIX + name: torch.empty(*shape, config.r, dtype=dtype, device="cpu").uniform_(
                -bounds[name], bounds[name]
            )
            for name, shape in shapes.items()
        }

    def position_of(self, config: LortaConfig, path: str) -> Position:
        """Return the rows that belong to the module of this path."""
        return position_of(config, self.geometry, config.geometry or {}, path)

    def scaling_of(self, config: LortaConfig) -> float:
        """Return what the update is multiplied by."""
        return scaling_factor(config.scaling, config.alpha, config.r)

    def add_weighted_adapter(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str = "cat"
    ) -> None:
        """Add an adapter whose update is the weighted sum of the updates of others.

        The sum is exact; its rank is the sum of the ranks. Modules to save, tokens and biases are not combined.

        Args:
            adapters: names of the adapters to add.
            weights: one number for each of them.
            adapter_name: name of the new adapter.
            combination_type: only "cat", which joins the columns of the factors.

        Raises:
            ValueError: another `combination_type`, a name that is taken or unknown, not one number for each adapter,
                or adapters whose order, head side or target modules differ. Nothing is added then.

        Example:
            >>> from peft import get_peft_model
            >>> from transformers import LlamaConfig, LlamaForCausalLM
            >>> from lorta.tuner import LortaConfig
            >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
            >>> model = get_peft_model(LlamaForCausalLM(shape), LortaConfig(r=2), adapter_name="first")
            >>> model.add_adapter("second", LortaConfig(r=3))
            >>> model.add_weighted_adapter(["first", "second"], [0.5, 0.5], "both")
            >>> model.peft_config["both"].r
            5
        """
        self._check_sum(adapters, weights, adapter_name, combination_type)
        configs: list[Any] = [self.peft_config[adapter] for adapter in adapters]
        rank = sum(config.r for config in configs)
        whole = {"modules_to_save": None, "trainable_token_indices": None, "bias": "none"}
        self.peft_config[adapter_name] = replace(configs[0], r=rank, alpha=1.0, scaling="alpha", **whole)
        self.inject_adapter(self.model, adapter_name)
        sizes = [weight * self.scaling_of(config) for weight, config in zip(weights, configs, strict=True)]
        for name in self.tuner_layer_cls.adapter_layer_names:
            container = getattr(self, name)
            if adapter_name in container:
                factors = [container[adapter].data for adapter in adapters]
                if name == PREFIX + "hidden":  # the update is linear in it
                    factors = [size * factor for size, factor in zip(sizes, factors, strict=True)]
                container[adapter_name].data = torch.cat(factors, dim=-1)

    def _check_sum(
        self, adapters: Sequence[str], weights: Sequence[float], adapter_name: str, combination_type: str
    ) -> None:
        """Raise ValueError for another kind of sum, numbers or names that do not fit, and adapters that differ."""
        if combination_type != "cat":
            raise ValueError(f"LoRTA adds adapters exactly: use combination_type='cat', got {combination_type!r}.")
        if adapter_name in self.peft_config:
            raise ValueError(f"adapter '{adapter_name}' exists already: choose another name or delete it first.")
        if not adapters or len(adapters) != len(weights):
            raise ValueError(
                f"add_weighted_adapter takes one weight for each adapter, got {len(adapters)} adapters and "
                f"{len(weights)} weights."
            )
        if unknown := [adapter for adapter in adapters if adapter not in self.peft_config]:
            raise ValueError(f"there is no adapter {', '.join(unknown)}; loaded: {', '.join(self.peft_config)}.")
        if infinite := [weight for weight in weights if not math.isfinite(weight)]:
            raise ValueError(f"weights of add_weighted_adapter must be finite numbers, got {infinite[0]}.")
        first, *others = [self.peft_config[adapter] for adapter in adapters]
        for config in others:
            if any(getattr(config, name) != getattr(first, name) for name in ("order", "head_side", "geometry")):
                raise ValueError(
                    f"adapters {', '.join(adapters)} differ in order, head_side or target modules, so their sum is "
                    f"not a LoRTA adapter: activate them together, or merge one after the other."
                )

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter, and what its layers shared."""
        super().delete_adapter(adapter_name)
        self._forget_groups(adapter_name)

    def share_factors(self, adapter: str, source: str, names: Sequence[str]) -> None:
        """Let an adapter use factors of another one from now on. Both train them when they are active.

        Each adapter is saved with all its factors.

        Args:
            adapter: the adapter that gives up its own factors.
            source: the adapter whose factors it uses.
            names: which factors: "hidden" (hidden, r), "head_dim" (head_dim, r), "heads" (heads, r),
                "layers" (layers, r), "matrices" (matrices, r).

        Raises:
            ValueError: one of the adapters does not have such a factor, or the shapes differ.

        Example:
            >>> from peft import get_peft_model
            >>> from transformers import LlamaConfig, LlamaForCausalLM
            >>> from lorta.tuner import LortaConfig
            >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
            >>> model = get_peft_model(LlamaForCausalLM(shape), LortaConfig(r=2), adapter_name="first")
            >>> model.add_adapter("second", LortaConfig(r=2))
            >>> model.base_model.share_factors("second", "first", ["hidden"])
            >>> model.base_model.lorta_hidden["second"] is model.base_model.lorta_hidden["first"]
            True
        """
        containers = [getattr(self, PREFIX + name, {}) for name in names]
        for name, container in zip(names, containers, strict=True):
            shapes = [container[key].shape if key in container else None for key in (adapter, source)]
            if shapes[0] is None or shapes[0] != shapes[1]:
                raise ValueError(f"adapters '{adapter}' and '{source}' have no factor '{name}' of one shape: {shapes}.")
        for container in containers:
            container[adapter] = container[source]

    def _create_factors(self, adapter: str, config: LortaConfig, weight: Tensor) -> None:
        super()._create_factors(adapter, config, weight)
        self._forget_groups(adapter)  # of one that a base carried under the same name

    def _forget_groups(self, adapter: str) -> None:
        for shared in (self.input_groups, self.layers_alike):
            for key in [key for key in shared if key[0] == adapter]:
                del shared[key]

    def _place(self, layer: LortaLinear, adapter: str, config: LortaConfig, path: str) -> None:
        position, order = self.position_of(config, path), ORDERS[config.order]
        layer.update_layer(adapter, self.scaling_of(config), position, config.dropout, order)
        joint = joint_position(order, position, self.geometry, config.geometry or {})
        if joint is not None:
            key = (adapter, position.layer_row, position.feedforward)
            group = self.input_groups.setdefault(key, InputGroup(joint))
            layer.group[adapter] = group, joint.matrix_rows.index(position.matrix_rows[0])
        if config.order == "5_way" and (joint is not None or len(position.matrix_rows) == 1):
            kinds = self.layers_alike.setdefault((adapter, self.scaling_of(config)), {})
            rows = kinds.setdefault((joint or position)._replace(layer_row=0), [])
            if position.layer_row not in rows:  # once for all projections of a group
                rows.append(position.layer_row)
