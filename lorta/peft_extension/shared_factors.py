"""Tuners whose trainable factors belong to the whole model and are shared by many layers: LoRTA and the tensor family.

The factors of every adapter stand in `nn.ParameterDict` containers on the tuner model, one container a name, registered
once. Each adapted layer keeps unregistered references to the *containers* (PEFT replaces their entries when it casts,
moves or loads them) and its position: the rows of the factors that make its update. The update of every such method is
a matrix of low rank, so a tuner says how a position becomes a pair of thin matrices, and evaluation, merging and export
follow.

Source: PEFT 0.21.2, `peft/tuners/vera`, which shares frozen state in this way.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from peft.utils.quantization_utils import resolve_quantization_backend
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from transformers.pytorch_utils import Conv1D

from lorta.geometry import Geometry
from lorta.peft_extension.registry import AdditiveTunerLayer, ExternalTuner, forget_adapter

NO_DROPOUT = nn.Identity()  # one for all: PEFT walks over all modules when an adapter is loaded or chosen


class SharedFactorLinear(AdditiveTunerLayer):
    """A wrapped `nn.Linear` or `Conv1D` whose updates come from factors that the tuner model holds.

    A subclass sets `adapter_layer_names`, the names of the containers, and gives `low_rank_pair`.
    """

    other_param_names = ("scaling", "position", "adapter_dropout")

    def __init__(self, base_layer: nn.Module, shared: Mapping[str, nn.ParameterDict]) -> None:
        """`shared` maps each name of `adapter_layer_names` to the container of that factor for every adapter."""
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(base_layer)
        self.transposed = isinstance(self.get_base_layer(), Conv1D)  # its weight is (inputs, outputs)
        self.in_features, self.out_features = features(self.get_base_layer())
        for name, container in shared.items():  # unregistered, or a state dict would hold every factor once per layer
            object.__setattr__(self, name, container)
        self.scaling: dict[str, float] = {}
        self.position: dict[str, Any] = {}
        self.adapter_dropout = nn.ModuleDict()
        self.merged_adapters = []
        self.train(base_layer.training)

    def update_layer(self, adapter: str, scaling: float, position: Any, dropout: float) -> None:
        """Let an adapter, whose factors exist already, act on this layer at the given position."""
        self.scaling[adapter] = scaling
        self.position[adapter] = position
        # a new module is in training mode, whatever the model around it is in
        self.adapter_dropout[adapter] = nn.Dropout(dropout).train(self.training) if dropout else NO_DROPOUT

    def factors(self, adapter: str, device: torch.device | None = None) -> dict[str, Tensor]:
        """Return an adapter's factors by container name, on another device when layers are spread over several."""
        return {
            name: getattr(self, name)[adapter].to(device)
            for name in self.adapter_layer_names
            if adapter in getattr(self, name)
        }

    def low_rank_pair(self, adapter: str, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return (down, up), (inputs, rank) and (outputs, rank): the update of the layer is `scaling * up @ down.T`.

        One of the two carries the scaling already.
        """
        raise NotImplementedError

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return one adapter's dense update, scaling included, in the layout of the base weight and the factors' dtype.

        That layout is (outputs, inputs), and (inputs, outputs) for a Conv1D.
        """
        with torch.no_grad():
            down, up = self.low_rank_pair(adapter)
            return down @ up.T if self.transposed else up @ down.T

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True: an update is exactly a LoRA."""
        return True

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, factored: the dense matrix is never built."""
        down, up = self.low_rank_pair(adapter, x.device)
        x = self.adapter_dropout[adapter](self._cast_input_dtype(x, down.dtype))
        return functional.linear(functional.linear(x, down.T), up)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Set the active adapters, which alone are trainable, and they only without `inference_mode`.

        PEFT's version takes each container's slow way to its entries, in every layer and for every loaded adapter.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        for name in self.adapter_layer_names:
            entries = list(getattr(self, name).named_parameters(remove_duplicate=False))
            chosen = {id(factor) for adapter, factor in entries if adapter in names}  # two adapters may share one
            for _, factor in entries:
                wanted = id(factor) in chosen and not inference_mode
                if factor.requires_grad != wanted and factor.is_leaf:
                    factor.requires_grad_(wanted)
        self._freeze_non_trainable_peft_weights(names)
        self._active_adapter = names

    def _get_available_adapters(self) -> set[str]:
        # PEFT asks the factor containers, which also know the adapters that leave this layer alone
        return set(self.position)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's version also casts to the dtype of the base layer, which would round float32 factors
        device = device or self.weight.device
        for name in self.adapter_layer_names:
            container = getattr(self, name)
            if adapter_name in container and not container[adapter_name].is_meta:
                container[adapter_name].data = container[adapter_name].data.to(device)


class SharedFactorModel(ExternalTuner):
    """A base model with adapters that share their factors.

    A subclass sets `tuner_layer_cls` and gives the methods below that raise NotImplementedError. Its config has
    `dropout`, and `geometry`, a plain mapping that says what the factor rows stand for.
    """

    uses_shared_state = True
    tuner_layer_cls: ClassVar[type[SharedFactorLinear]]
    _to_start: str | None = None  # the adapter whose factors the first target of an injection makes

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the base model. Raises ValueError where DDP would lose gradients, see `_check_reduction`."""
        _check_reduction(self.model)
        return super().forward(*args, **kwargs)

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        # layers of a base that carries an adapter already read the containers that they were made with
        used = next((module for module in model.modules() if isinstance(module, self.tuner_layer_cls)), None)
        for name in self.tuner_layer_cls.adapter_layer_names:
            setattr(self, name, nn.ParameterDict() if used is None else getattr(used, name))

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adapt all targets. An adapter of this name, which a base may carry already, is replaced in every layer."""
        self._to_start = adapter_name
        super().inject_adapter(model, adapter_name, *args, **kwargs)

    @cached_property
    def geometry(self) -> Geometry:
        """The base model's row of `lorta.geometry`. Raises ValueError for an architecture without one."""
        return Geometry.from_config(self.get_model_config(self.model))

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Check all targets before the first is replaced, and write into the config what the factor rows stand for."""
        _maybe_include_all_linear_layers(peft_config, model)  # "all-linear"; PEFT itself does so later
        if isinstance(peft_config.target_modules, set):
            peft_config.target_modules = sorted(peft_config.target_modules)
        targets = {
            name: module
            for name, module in model.named_modules()
            if name and self._check_target_module_exists(peft_config, name)
        }
        if not targets:
            return  # PEFT's own message says what was looked for
        described = self.describe_targets(list(targets))
        if peft_config.geometry not in (None, described):
            kind = type(peft_config).__name__
            raise ValueError(
                f"this {kind} belongs to another model or other targets: it holds {peft_config.geometry}, the model "
                f"has {described}. Load the adapter on the model it was trained on, or make a new {kind}."
            )
        self.check_targets(peft_config, described, targets)
        peft_config.geometry = described

    def describe_targets(self, paths: list[str]) -> dict[str, Any]:
        """Return what the factor rows stand for. Raises ValueError for modules that do not make one tensor."""
        raise NotImplementedError

    def check_targets(self, config: Any, described: Mapping[str, Any], targets: Mapping[str, nn.Module]) -> None:
        """Raise TypeError for a target that is not linear, ValueError for one that does not fit its rows."""
        raise NotImplementedError

    def initial_factors(self, config: Any, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return new factors by container name, drawn on the CPU, so that a seed gives the same on every device."""
        raise NotImplementedError

    def position_of(self, config: Any, path: str) -> Any:
        """Return where the module of this path sits in the shared tensor."""
        raise NotImplementedError

    def scaling_of(self, config: Any) -> float:
        """Return what the update is multiplied by."""
        raise NotImplementedError

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            layer = target
        else:
            names = self.tuner_layer_cls.adapter_layer_names
            layer = self.tuner_layer_cls(target, {name: getattr(self, name) for name in names})
            self._replace_module(parent, target_name, layer, target)
        if self._to_start == adapter_name:
            self._to_start = None
            for module in self.model.modules():
                if isinstance(module, self.tuner_layer_cls):
                    forget_adapter(module, adapter_name)
            self._create_factors(adapter_name, peft_config, layer.weight)
        self._place(layer, adapter_name, peft_config, current_key)

    def _place(self, layer: SharedFactorLinear, adapter: str, config: Any, path: str) -> None:
        layer.update_layer(adapter, self.scaling_of(config), self.position_of(config, path), config.dropout)

    def _create_factors(self, adapter: str, config: Any, weight: Tensor) -> None:
        dtype = torch.promote_types(weight.dtype, torch.float32) if weight.is_floating_point() else torch.float32
        for name, factor in self.initial_factors(config, dtype).items():
            # TRL gives its reference adapter 'ref' the configuration of 'default', and copies those weights whose
            # names go on after the adapter's: factors' do not, so the copy is made here
            if adapter == "ref" and self.peft_config.get("default") is config:
                factor = getattr(self, name)["default"].detach().clone()
            getattr(self, name)[adapter] = nn.Parameter(factor.to(weight.device))

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Keep factors in float32 at least, or take the base weights' dtype when PEFT is told not to autocast."""
        layer = next(module for module in self.model.modules() if isinstance(module, self.tuner_layer_cls))
        for factor in layer.factors(adapter_name).values():
            wanted = torch.promote_types(factor.dtype, torch.float32) if autocast_adapter_dtype else layer.weight.dtype
            if wanted.is_floating_point:
                factor.data = factor.data.to(wanted)


def _check_reduction(model: nn.Module) -> None:
    """Raise ValueError when DistributedDataParallel would reduce the factors' gradients too early.

    It reduces a gradient when it arrives first. With reentrant checkpointing the gradient of a shared factor arrives
    once a layer: all later parts stay on their rank, and the ranks drift apart without a word.
    """
    parallel = getattr(DistributedDataParallel, "_active_ddp_module", None)
    if parallel is None or parallel.static_graph or not (model.training and torch.is_grad_enabled()):
        return
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            settings = getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {})
            if settings.get("use_reentrant") is not False:  # PyTorch's default is reentrant
                raise ValueError(
                    "DistributedDataParallel with reentrant gradient checkpointing loses gradients of factors that "
                    "layers share: set use_reentrant=False (gradient_checkpointing_kwargs), or static_graph=True "
                    "(ddp_static_graph)."
                )


def features(module: nn.Module) -> tuple[int, int]:
    """Return (inputs, outputs) of a linear module. Raises TypeError for a module that is none."""
    if isinstance(module, nn.Linear):  # quantised linear layers are its subclasses
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    raise TypeError(f"expected a torch.nn.Linear or a transformers Conv1D, got a {type(module).__name__}.")
