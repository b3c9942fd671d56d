"""The one place where PEFT learns a tuner that it does not ship.

`peft.utils.register_peft_method` refuses every name outside the closed enum `PeftType`. Its three public dictionaries
take plain strings as well, because the members of that enum hash and compare like their names. A tuner module calls
`register_tuner` when it is imported, so importing it must come before loading one of its checkpoints.

Source: PEFT 0.21.2, `peft/mapping.py` and `peft/tuners/tuners_utils.py`; PEFT issue 2273 on external tuners.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, cast

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_adapters_to_merge
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from lorta.peft_extension.rows import BASE_ROWS, check_rows, rows_of


def register_tuner(name: str, config_class: type[PeftConfig], model_class: type[BaseTuner], prefix: str) -> str:
    """Make PEFT create, save and load a tuner, and return its `peft_type`, the name in capitals.

    Registering the same classes again changes nothing. `prefix` begins the name of every adapter attribute.
    Raises ValueError for a type or prefix that is already taken.
    """
    peft_type = name.upper()
    entries: list[tuple[dict[Any, Any], Any]] = [  # PEFT annotates the keys as PeftType, a str
        (PEFT_TYPE_TO_CONFIG_MAPPING, config_class),
        (PEFT_TYPE_TO_TUNER_MAPPING, model_class),
        (PEFT_TYPE_TO_PREFIX_MAPPING, prefix),
    ]
    for mapping, value in entries:
        if mapping.get(peft_type, value) != value:
            raise ValueError(
                f"peft type '{peft_type}' is already registered with {mapping[peft_type]}: choose another name."
            )
    for other, taken in PEFT_TYPE_TO_PREFIX_MAPPING.items():
        if taken == prefix and other != peft_type:
            raise ValueError(f"prefix '{prefix}' already belongs to peft type '{other!s}': choose another prefix.")
    for mapping, value in entries:
        mapping[peft_type] = value
    return peft_type


class ExternalTuner(BaseTuner):
    """Base of the tuners that PEFT does not ship. A subclass sets `prefix`, `tuner_layer_cls`, `_create_and_replace`.

    PEFT calls its injection hooks for the first adapter only: create state that layers share in `_create_and_replace`.
    """

    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        keep_4_bit_weights_readable(model)
        super().__init__(model, *args, **kwargs)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adapt all targets, as PEFT does. Where one of them fails, none is adapted: the model can be used again."""
        layers = [module for module in model.modules() if isinstance(module, self.tuner_layer_cls)]
        untouched = [layer for layer in layers if adapter_name not in layer._get_available_adapters()]
        trained = {weight: weight.requires_grad for weight in model.parameters()}
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            for parent, child_name, child in reversed(self._replaced):
                setattr(parent, child_name, child)
            for layer in untouched:
                forget_adapter(layer, adapter_name)
            for weight, required in trained.items():
                weight.requires_grad_(required)
            raise
        finally:
            self._replaced = []

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Return the name of a weight in a checkpoint, which holds no adapter's name.

        PEFT's own version looks for that name in the last two places only, so that what a branch of several modules
        holds was saved under the adapter's name and could be loaded under no other.
        """
        return re.sub(rf"(\.{re.escape(cls.prefix)}[^.]*)\.{re.escape(adapter_name)}(?=\.|$)", r"\1", key, count=1)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Name a checkpoint's weights as the model does; checkpoints of before, with an adapter's name inside, too."""
        known = {cls._remove_adapter_name_from_key(key, adapter_name) for key in model.state_dict()}
        named = re.compile(rf"(\.{re.escape(cls.prefix)}[^.]*)\.[^.]+")
        plain = {key: named.sub(r"\1", key, count=1) for key in state_dict}
        old = {key for key in state_dict if key not in known and plain[key] in known}
        state_dict = {plain[key] if key in old else key: value for key, value in state_dict.items()}
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """Put `new_module` in the place of `child`, with its adapter attributes on the child's device.

        PEFT's own version also copies `child.weight`, which a RoBERTa classification head does not have, so that
        `merge_and_unload` fails for every tuner that inherits it.
        """
        setattr(parent, child_name, new_module)
        self._replaced.append((parent, child_name, child))
        weight = next(child.parameters(), None)
        if weight is None:
            return
        for name, module in new_module.named_modules():
            on_meta = any(parameter.is_meta for parameter in module.parameters())
            if name.startswith(self.prefix) and not on_meta:
                module.to(weight.device)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Raise weights to float32, as PEFT does, or when told not to, give them the dtype of their base layer."""
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        layers = [] if autocast_adapter_dtype else self.model.modules()
        for layer in layers:
            if isinstance(layer, self.tuner_layer_cls) and adapter_name in layer._get_available_adapters():
                dtype = cast(torch.Tensor, layer.weight).dtype
                if dtype.is_floating_point:  # a quantised weight's is none
                    cast_weights(layer, adapter_name, dtype)

    @contextmanager
    def _enable_peft_forward_hooks(self, *_: Any, **kwargs: Any) -> Iterator[None]:
        """Hand `adapter_names`, one name per row of the batch, to every layer for the length of one call.

        Rows named "__base__" get no adapter. Raises ValueError for an unknown name and in training mode.
        """
        names: list[str] | None = kwargs.pop("adapter_names", None)
        if names is None:
            yield
            return
        if self.training:
            raise ValueError("adapter_names is for inference: call model.eval() first.")
        unknown = sorted(set(names) - set(self.peft_config) - {BASE_ROWS})
        if unknown:
            raise ValueError(f"adapter_names: no adapter {', '.join(unknown)}; loaded: {', '.join(self.peft_config)}.")
        repeated = [name for name in names for _ in range(kwargs.get("num_beams") or 1)]  # as beam search repeats rows
        encoder = self.model.get_encoder() if hasattr(self.model, "get_encoder") else None
        inside = set() if encoder is None or encoder is self.model else set(encoder.modules())
        hooks = [
            module.register_forward_pre_hook(
                partial(_name_rows, names=names if module in inside else repeated), with_kwargs=True
            )
            for module in self.modules()
            if isinstance(module, self.tuner_layer_cls | AuxiliaryTrainingWrapper)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def not_finite(adapter: str) -> str:
    """Return what to say of merged weights that are not finite. It begins with PEFT's words, which callers look for."""
    return (
        f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken: it gives weights that are not "
        f"finite, and the base weights stay as they are."
    )


def forget_adapter(layer: BaseTunerLayer, adapter: str) -> None:
    """Drop what a layer holds of an adapter; which adapters are active stays as it is."""
    for name in (*layer.adapter_layer_names, *layer.other_param_names):
        container = getattr(layer, name)
        if adapter in container:
            del container[adapter]


def cast_weights(layer: BaseTunerLayer, adapter: str, dtype: torch.dtype) -> None:
    """Cast what a layer trains of an adapter; its buffers, part of what the method is, keep their precision."""
    for name in layer.adapter_layer_names:
        entry = getattr(layer, name)[adapter]
        for weight in [entry] if isinstance(entry, nn.Parameter) else entry.parameters():
            weight.data = weight.data.to(dtype)


def keep_4_bit_weights_readable(model: nn.Module) -> None:
    """Undo and switch off what bitsandbytes 0.50.2 does to a 4-bit layer in its first evaluation on an AVX512-BF16 CPU.

    It packs the weight for its inference kernel. That kernel has no backward pass, so that training after an evaluation
    would drop gradients, and PEFT, which dequantises without looking, would merge into noise.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.state_dict()  # unpacks, as a side effect
            module.support_avx512bf16_for_cpu = False  # pyright: ignore[reportArgumentType]


def _name_rows(_: nn.Module, args: Any, kwargs: dict[str, Any], names: list[str]) -> tuple[Any, dict[str, Any]]:
    return args, kwargs | {"adapter_names": names}


class AdditiveTunerLayer(nn.Module, BaseTunerLayer):
    """A layer whose update is a matrix added to the base weight: evaluation and merging.

    A subclass gives `update` and `get_delta_weight`, the same update on inputs and as a matrix.
    """

    base_layer: nn.Module
    quantization_backend: Any = None  # of a quantised base layer: PEFT's, which knows when its output must be cloned

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """Return one adapter's update of the output, scaling included, in the dtype of the adapter's weights."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return the base layer's output plus the updates of the active adapters, in the base output's dtype.

        `adapter_names` in kwargs, one name per row, chooses an adapter for each row instead.
        """
        names = kwargs.pop("adapter_names", None)
        if self.disable_adapters and self.merged:
            self.unmerge()
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or (self.merged and names is None):
            return result
        base_dtype = result.dtype
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        if names is not None:
            return self._update_rows(result, x, names)
        for adapter in self.active_adapters:
            if adapter in self._get_available_adapters():
                result = result + self.update(x, adapter)
        return result.to(base_dtype)

    def _update_rows(self, result: torch.Tensor, x: torch.Tensor, names: list[str]) -> torch.Tensor:
        check_rows(self, x, names)
        result = result.clone()
        for adapter in sorted(set(names) & self._get_available_adapters()):
            rows = rows_of(names, adapter, x.device)
            update = self.update(x[rows], adapter)
            result[rows] = (result[rows] + update).to(result.dtype)
        return result

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """Return one adapter's update, scaling included, in the base weight's shape (outputs, inputs)."""
        raise NotImplementedError

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of the named (default: the active) adapters to the base weight.

        The sum is taken in float32 at least and rounded once. With `safe_merge`, raises ValueError when it is not
        finite and leaves the base weight untouched.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self._get_available_adapters():
                continue
            merged = self._shifted_base_weight(adapter, sign=1)
            if safe_merge and not torch.isfinite(merged).all():
                raise ValueError(not_finite(adapter))
            self.set_base_weight(merged)
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Take the merged updates out again, exact up to the rounding of the base weight's dtype."""
        if not self.merged:
            warnings.warn("no adapter is merged, nothing to unmerge.", stacklevel=2)
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            if adapter in self._get_available_adapters():
                self.set_base_weight(self._shifted_base_weight(adapter, sign=-1))

    def _shifted_base_weight(self, adapter: str, sign: int) -> torch.Tensor:
        base = self.get_base_weight()
        update = self.get_delta_weight(adapter)
        wide = torch.promote_types(base.dtype, torch.float32)
        return (base.to(wide) + sign * update.to(base.device, wide)).to(base.dtype)
