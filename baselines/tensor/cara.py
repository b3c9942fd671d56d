"""CaRA: two CP tensors, one for the updates of q, k and v with a mode for heads, one for all other projections.

    q, k, v of slot k:   update[h * d/H + c, e] = scale * sum over r of  slots[k] weights inputs[e] heads[h] head_dim[c]
    the others:          one slice of  block_slots[k] block_weights block_wide[e] block_thin[c]  for each d x d block;
                         blocks are side by side along the inputs or along the outputs, not both

e is the output of `o` and of the blocks of `up`, and the input of those of `down`. The second tensor comes with biases,
one a projection, shared by all layers and scaled too. Dropout is on the entries of the update, not on the input, so
training with dropout builds the dense update.

Source: Veeramacheneni et al. 2025 (ICML), released code BonnBytes/CaRA, `src/cara/cara.py`. There a mean of `weights`
other than 1 with deviation 0 leaves them uninitialised; here it is their value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from baselines.bias_settings import declare, settings_with
from baselines.tensor.family import Factors, Pair, TensorConfig, TensorLinear, TensorModel
from baselines.tensor.places import (
    READERS,
    block_grid,
    cara_block,
    cara_parts,
    first_blocks,
    roles_of,
    slots_of,
    widths,
)
from lorta.geometry import ROLES
from lorta.peft_extension.registry import register_tuner

ATTENTION_FACTORS = ("slots", "inputs", "heads", "head_dim", "weights")
BLOCK_FACTORS = ("block_slots", "block_wide", "block_thin", "block_weights")


@dataclass
class CaraConfig(TensorConfig):
    """CaRA settings."""

    scale: float = 1.0
    weights_mean: float = 1.0  # of the components' weights at the start
    weights_std: float = 0.0

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.scale


class CaraLinear(TensorLinear):
    """A linear layer with CaRA updates: a matrix, and a bias outside q, k and v."""

    prefix = "cara_"
    adapter_layer_names = tuple(
        f"cara_{name}"
        for name in (*ATTENTION_FACTORS, *BLOCK_FACTORS, *(f"bias_{role}" for role in ROLES if role not in READERS))
    )

    def __init__(self, base_layer: nn.Module, shared: Mapping[str, nn.ParameterDict]) -> None:
        super().__init__(base_layer, shared)
        self.base_has_bias = getattr(self.get_base_layer(), "bias", None) is not None

    @staticmethod
    def pair(config: CaraConfig, factors: Factors, role: str, rows: tuple[int, int, int]) -> Pair:
        """Return (down, up) of a slot; `rows`: its first row, and how many blocks it has along (inputs, outputs)."""
        first, across, along = rows
        if role in READERS:
            row = factors["slots"][first] * factors["weights"]
            return factors["inputs"], _khatri_rao(factors["heads"] * row, factors["head_dim"])
        row = factors["block_slots"][first : first + across * along] * factors["block_weights"]
        if role != "down" and across > 1:  # `o` of heads that are wider together than the model
            return _khatri_rao(row, factors["block_thin"]), factors["block_wide"]
        wide = _khatri_rao(row, factors["block_wide"])
        return (wide, factors["block_thin"]) if role == "down" else (factors["block_thin"], wide)

    def bias(self, adapter: str, device: torch.device | None = None) -> Tensor | None:
        """Return one adapter's update of the layer's bias, (outputs,), scaling included; None for q, k and v."""
        factors = self.named_factors(adapter, device)
        biases = [factors[f"bias_{role}"] for role in self.position[adapter].roles if role not in READERS]
        return self.scaling[adapter] * torch.cat(biases) if biases else None

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output."""
        down, up = self.low_rank_pair(adapter, x.device)
        x, bias = self._cast_input_dtype(x, down.dtype), self.bias(adapter, x.device)
        dropout = self.adapter_dropout[adapter]
        if self.training and isinstance(dropout, nn.Dropout):
            return functional.linear(x, dropout(up @ down.T), bias)
        return functional.linear(functional.linear(x, down.T), up, bias)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return whether an update is exactly a LoRA: it is not where it has a bias."""
        return self.bias(adapter_name) is None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates to the base weight and its bias. A layer without a bias gets one, until unmerged."""
        before = len(self.merged_adapters)
        super().merge(safe_merge, adapter_names)
        for adapter in self.merged_adapters[before:]:
            self._shift_bias(adapter, sign=1)

    def unmerge(self) -> None:
        """Take the merged updates out again, exact up to the rounding of the base weight's dtype."""
        merged = [adapter for adapter in self.merged_adapters if adapter in self._get_available_adapters()]
        super().unmerge()
        for adapter in merged:
            self._shift_bias(adapter, sign=-1)
        if not self.base_has_bias:
            self.get_base_layer().register_parameter("bias", None)

    @torch.no_grad()
    def _shift_bias(self, adapter: str, sign: int) -> None:
        shift, base = self.bias(adapter), cast(nn.Linear, self.get_base_layer())
        if shift is None:
            return
        if base.bias is None:
            base.bias = nn.Parameter(self.weight.new_zeros(self.out_features), requires_grad=False)
        base.bias.data = (base.bias + sign * shift.to(base.bias.device)).to(base.bias.dtype)


def _khatri_rao(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the columnwise Kronecker product, (len(outer) * len(inner), rank)."""
    return (outer[:, None, :] * inner).flatten(0, 1)


class CaraModel(TensorModel):
    """A model with CaRA adapters."""

    prefix = CaraLinear.prefix
    tuner_layer_cls = CaraLinear
    title = "CaRA"
    default_roles = ROLES

    def _unload_and_optionally_merge(self, merge: bool = True, **settings: Any) -> nn.Module:
        """Unload as PEFT does; a merged model is saved and loaded with the biases that it gained.

        Raises ValueError for an architecture whose configuration has no setting for them.
        """
        biases = self._new_biases(settings.get("adapter_names")) if merge else []
        if not biases or not isinstance(self.model, PreTrainedModel):
            return super()._unload_and_optionally_merge(merge=merge, **settings)  # pyright: ignore[reportReturnType]
        chosen = settings_with(self.model, biases)
        if chosen is None:
            raise ValueError(
                f"CaRA adds a bias to {biases[0].removesuffix('.bias')}, and no setting of a "
                f"{type(self.model).__name__} gives it one, so that a merged model would be loaded without it: keep "
                f"the adapter, or adapt q, k and v only. merge_adapter merges in memory."
            )
        model = cast(PreTrainedModel, super()._unload_and_optionally_merge(merge=merge, **settings))
        declare(model, chosen)
        return model

    def _new_biases(self, adapters: list[str] | None) -> list[str]:
        """Return the paths of biases that merging adapters, by default the active ones, adds to the model."""
        layers = [(path, layer) for path, layer in self.model.named_modules() if isinstance(layer, CaraLinear)]
        return [
            f"{path}.bias"
            for path, layer in layers
            for adapter in {*(adapters or self.active_adapters), *layer.merged_adapters}
            if not layer.base_has_bias and adapter in layer.position and layer.bias(adapter) is not None
        ]

    @staticmethod
    def check(config: CaraConfig, described: Mapping[str, Any]) -> None:
        """Raise ValueError for a projection outside attention that is no whole number of blocks."""
        if cara_parts(described)[1]:
            cara_block(described)

    @staticmethod
    def rows_of(config: CaraConfig, layer: int, role: str) -> tuple[int, int, int]:
        """Return (first row of its slots, blocks along its inputs, blocks along its outputs)."""
        readers, others = cara_parts(config.described)
        if role in READERS:
            return slots_of(config.described, readers).index((layer, role)), 1, 1
        block = cara_block(config.described)
        return first_blocks(config.described, others, block)[layer, role], *block_grid(config.described, role, block)

    @staticmethod
    def initial(config: CaraConfig) -> dict[str, Tensor]:
        """Return factors as released: `inputs`, `block_wide`, biases 0; slots Xavier normal; the others orthogonal."""
        described, rank = config.described, config.r
        readers, others = cara_parts(described)
        factors: dict[str, Tensor] = {}
        if readers:
            factors["slots"] = nn.init.xavier_normal_(torch.empty(len(slots_of(described, readers)), rank))
            factors["inputs"] = torch.zeros(described["hidden"], rank)
            for name in ("heads", "head_dim"):
                factors[name] = nn.init.orthogonal_(torch.empty(described[name], rank))
            factors["weights"] = _initial_weights(config)
        if others:
            thin, wide = cara_block(described)
            count = first_blocks(described, others, (thin, wide))[-1, ""]
            factors["block_slots"] = nn.init.xavier_normal_(torch.empty(count, rank))
            factors["block_wide"] = torch.zeros(wide, rank)
            factors["block_thin"] = nn.init.orthogonal_(torch.empty(thin, rank))
            factors["block_weights"] = _initial_weights(config)
        return factors | {
            f"bias_{role}": torch.zeros(widths(described, role)[1]) for role in roles_of(described) if role in others
        }


def _initial_weights(config: CaraConfig) -> Tensor:
    return config.weights_mean + config.weights_std * torch.randn(config.r)


register_tuner("cara", CaraConfig, CaraModel, CaraModel.prefix)
