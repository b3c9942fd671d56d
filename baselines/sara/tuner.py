"""SaRA as a PEFT tuner; importing this module registers it.

Trains the weights that pre-training left nearest to zero: M = [|P0| < threshold], the forward weight is P0 with new
values at M. Three more parts: a nuclear norm on the trained weights themselves (P at M, zero elsewhere), one selection
anew half-way (M2 = M and |P| still < threshold; the rest of M keeps what it learnt and is frozen), and gradients and
optimizer state for the selected entries alone. Source: Hu et al. 2024, arXiv:2409.06633, eqs 2 to 7 and appendices B
and K; released code sjtuplayer/SaRA, `optim/adamw2.py` (its `adamw.py` drops the norm and flips signs).

The paper selects in every parameter; here, as an adapter, in the targeted linear weights. It trains P at M; here the
same numbers are kept as a difference from P0, so that adapters can be added, merged and taken off.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers
from torch import Tensor, nn

from baselines.sara.sparse import SparselyShiftedLinear, nuclear_gradient, shifted, smallest_magnitudes
from lorta.peft_extension.config import ExternalConfig
from lorta.peft_extension.registry import AdditiveTunerLayer, ExternalTuner, register_tuner
from lorta.peft_extension.rows import apply_by_row, check_rows


@dataclass
class SaraConfig(ExternalConfig):
    """SaRA settings, with PEFT's names where PEFT has one. Raises ValueError for a value out of range."""

    r: int | None = None  # without a threshold: select as many weights as LoRA of rank r would add
    threshold: float | None = None  # of magnitudes, strict; written when r solved for it
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    rank_weight: float = 5e-3  # lambda of the nuclear norm
    rank_matrices: int | None = 1  # drawn anew for each step's norm; None: all
    switch_at: float | None = 0.5  # share of the run before the second selection; None: never
    keep_state: bool = False  # whether AdamW's moments of M2 survive the switch

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "SARA"
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # pyright: ignore[reportAttributeAccessIssue] as PEFT does
        if self.threshold is None and (self.r is None or self.r < 1):
            raise ValueError(f"SaraConfig needs a threshold, or r of at least 1 to solve for one; got r={self.r}.")
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(f"SaraConfig.threshold must be above 0, got {self.threshold}.")
        if self.switch_at is not None and not 0 < self.switch_at < 1:
            raise ValueError(f"SaraConfig.switch_at must be between 0 and 1, got {self.switch_at}: null for never.")


class SaraLinear(AdditiveTunerLayer):
    """A linear layer and, for each adapter, new values at some of its entries.

    Entries are flat positions in the weight: `sara_indices` with trained differences `sara_values`, and
    `sara_frozen_indices` with `sara_frozen_values`, which are empty before the switch.
    """

    adapter_layer_names = ("sara_values",)
    other_param_names = ("sara_indices", "sara_frozen_values", "sara_frozen_indices")

    def __init__(self, base_layer: nn.Linear, adapter_name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.sara_values = nn.ParameterDict()
        self.sara_indices: Any = BufferDict(persistent=True)
        self.sara_frozen_indices: Any = BufferDict(persistent=True)
        self.sara_frozen_values: Any = BufferDict(persistent=True)
        self._disable_adapters, self.merged_adapters, self._active_adapter = False, [], adapter_name

    def update_layer(self, adapter_name: str, config: SaraConfig, indices: Tensor) -> None:
        """Add an adapter that trains the entries at flat `indices`, or start it afresh."""
        none = torch.zeros(0, device=indices.device)
        self._set(adapter_name, indices, torch.zeros(indices.numel(), device=indices.device), none.int(), none)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def _set(self, adapter: str, indices: Tensor, values: Tensor, frozen_indices: Tensor, frozen: Tensor) -> None:
        trains = self.sara_values[adapter].requires_grad if adapter in self.sara_values else True
        self.sara_values[adapter] = nn.Parameter(values, requires_grad=trains)
        self.sara_indices[adapter] = indices.int()
        self.sara_frozen_indices[adapter] = frozen_indices.int()
        self.sara_frozen_values[adapter] = frozen

    def entries(self, adapter: str) -> tuple[Tensor, Tensor]:
        """Return flat indices and differences of all changed entries, trained and frozen."""
        indices = torch.cat([self.sara_indices[adapter], self.sara_frozen_indices[adapter]])
        return indices, torch.cat([self.sara_values[adapter], self.sara_frozen_values[adapter]])

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output with the active adapters' entries in its weight."""
        names = kwargs.pop("adapter_names", None)
        if self.disable_adapters and self.merged:
            self.unmerge()
        if names is not None and not self.disable_adapters:
            check_rows(self, x, names)
            return apply_by_row(x, names, lambda rows, adapters: self._with(adapters, rows, *args, **kwargs))
        return self._with([] if self.disable_adapters or self.merged else self.active_adapters, x, *args, **kwargs)

    def _with(self, adapters: list[str], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output with the entries of these adapters."""
        names = [name for name in adapters if name in self.sara_values]
        if not names:
            return self.base_layer(x, *args, **kwargs)
        parts = [self.entries(name) for name in names]
        indices, values = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        if torch.is_autocast_enabled(x.device.type):  # here, because backward runs outside autocast
            x = x.to(torch.get_autocast_dtype(x.device.type))
        result = cast(Tensor, SparselyShiftedLinear.apply(x, self.weight, indices, values))
        bias = cast(nn.Linear, self.get_base_layer()).bias
        return result if bias is None else result + bias.to(result.dtype)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return one adapter's difference from the base weight, dense, (outputs, inputs), float32."""
        return shifted(torch.zeros_like(self.weight, dtype=torch.float32), *self.entries(adapter))

    @torch.no_grad()
    def select_again(self, adapter: str, threshold: float) -> Tensor:
        """Freeze the trained entries that have grown to the threshold; return which trained ones remain, a mask."""
        indices, values = self.sara_indices[adapter], self.sara_values[adapter].detach()
        small = (self.weight.flatten()[indices] + values).abs() < threshold
        frozen = torch.cat([self.sara_frozen_indices[adapter], indices[~small]])
        learnt = torch.cat([self.sara_frozen_values[adapter], values[~small]])
        self._set(adapter, indices[small], values[small].clone(), frozen, learnt)
        return small

    def rank_gradient(self, adapter: str) -> Tensor:
        """Return the nuclear norm's gradient at the trained entries; of P at M, not of the difference (eq. 4)."""
        indices = self.sara_indices[adapter].long()
        masked = torch.zeros(self.weight.numel(), device=indices.device)
        masked[indices] = self.weight.detach().flatten()[indices].float() + self.sara_values[adapter].detach()
        return nuclear_gradient(masked.view(self.weight.shape)).flatten()[indices]

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        """Make room first: a file decides how many entries it has, and weights kept before the switch may return."""
        for name in list(self.sara_values):
            keys = [f"{prefix}{part}.{name}" for part in (*self.adapter_layer_names, *self.other_param_names)]
            tensors = [state_dict.get(key) for key in keys]
            if all(part is not None for part in tensors):
                values, indices, frozen, frozen_indices = (torch.empty_like(part) for part in tensors)
                device = self.weight.device
                self._set(name, *(part.to(device) for part in (indices, values, frozen_indices, frozen)))
            elif tensors[0] is not None and tensors[0].numel() == self.entries(name)[0].numel():
                none = torch.zeros(0, device=self.weight.device)
                self._set(name, self.entries(name)[0].sort().values, tensors[0].clone().to(none), none.int(), none)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's version also casts to the dtype of the base layer, which would round what is kept in float32
        for name in (*self.adapter_layer_names, *self.other_param_names):
            entry = getattr(self, name)[adapter_name]
            entry.data = entry.data.to(device or self.weight.device)


class SaraModel(ExternalTuner):
    """A model with SaRA adapters."""

    prefix = "sara_"
    tuner_layer_cls = SaraLinear

    def _prepare_model(self, peft_config: SaraConfig, model: nn.Module) -> None:
        """Select in all targets together: the threshold is one for the whole model."""
        _maybe_include_all_linear_layers(peft_config, model)  # "all-linear"; PEFT itself does so later
        targets = {
            path: module
            for path, module in model.named_modules()
            if path and self._check_target_module_exists(peft_config, path)
        }
        for path, module in targets.items():
            base = module.get_base_layer() if isinstance(module, SaraLinear) else module
            if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
                raise TypeError(f"SaRA selects in unquantised nn.Linear weights; {path} is a {type(base).__name__}.")
        weights = [cast(Tensor, module.weight).detach() for module in targets.values()]
        if peft_config.threshold is None:
            count = sum(cast(int, peft_config.r) * sum(weight.shape) for weight in weights)
            chosen, peft_config.threshold = smallest_magnitudes(weights, count) if weights else ([], None)
        else:
            chosen = [(weight.abs() < peft_config.threshold).flatten().nonzero().flatten() for weight in weights]
        if targets and not sum(indices.numel() for indices in chosen):
            raise ValueError(f"SaRA: no weight is below the threshold {peft_config.threshold}: raise it.")
        self.selection = dict(zip(targets, chosen, strict=True))

    def _create_and_replace(
        self,
        peft_config: SaraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        layer = target if isinstance(target, SaraLinear) else SaraLinear(cast(nn.Linear, target), adapter_name)
        layer.update_layer(adapter_name, peft_config, self.selection.pop(current_key))
        if adapter_name not in self.active_adapters:
            layer.sara_values[adapter_name].requires_grad_(False)  # it trains only once it is chosen
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)


def sara_layers(model: nn.Module) -> list[tuple[SaraLinear, str]]:
    """Return the model's SaRA layers, each with an active adapter's name, in the model's order."""
    layers = [layer for layer in model.modules() if isinstance(layer, SaraLinear)]
    return [(layer, name) for layer in layers for name in layer.active_adapters if name in layer.sara_values]


def changed_weights(model: nn.Module) -> int:
    """Return how many base weights differ with the adapters in them."""
    return sum(
        int((shifted(layer.weight, *layer.entries(name)) != layer.weight).sum()) for layer, name in sara_layers(model)
    )


register_tuner("sara", SaraConfig, SaraModel, SaraModel.prefix)
