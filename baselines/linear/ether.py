"""ETHER and ETHER+, reflections of a frozen weight (Bini et al. 2024, arXiv:2405.20271).

    ether:       W H,            H  = I - 2 u u^T / |u|^2           a reflection of the inputs
    ether_plus:  H+ W H+' ,      H+ = I - u u^T / |u|^2 + v v^T / |v|^2   of inputs and outputs, or of inputs alone

with n equal diagonal blocks in every H. Both are W plus a matrix of rank at most 2 n per side, which is how they are
evaluated: W u is one more column of the product, and H is never built. ETHER's H is a reflection and never the
identity; ETHER+ starts with v = -u and so at the base model. Read from the paper and the released code (mwbini/ether),
whose blocks of a weight hold other entries than its reflections for n > 1; here they hold the same.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.linear.tuner import BranchLayer, LinearTuner, LinearTunerConfig
from lorta.peft_extension.registry import register_tuner

FORMS = ("ether", "ether_plus")


@dataclass
class EtherConfig(LinearTunerConfig):
    """ETHER's settings. Raises ValueError for an unknown form, less than one block, and a two-sided ETHER."""

    form: str = "ether"
    blocks: int = 1  # must divide the inputs, and the outputs where those are reflected as well
    two_sided: bool = False  # ether_plus only

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = "ETHER"
        self.require_one_of(FORMS, "form")
        self.require_at_least(1, "blocks")
        if self.two_sided and self.form == "ether":
            raise ValueError("EtherConfig.two_sided is for the form 'ether_plus': ETHER reflects the inputs alone.")


class Reflection(nn.Module):
    """H - I of one side, `normals` (vectors, blocks, features / blocks): u, and v for ETHER+."""

    def __init__(self, features: int, config: EtherConfig) -> None:
        super().__init__()
        if features % config.blocks:
            raise ValueError(
                f"ETHER's blocks = {config.blocks} must divide {features} features: choose another number."
            )
        bound = 1 / math.sqrt(features // config.blocks)  # kaiming_uniform_ with a = sqrt(5)
        u = torch.empty(config.blocks, features // config.blocks).uniform_(-bound, bound)
        plus = config.form == "ether_plus"
        self.normals = nn.Parameter(torch.stack([u, -u]) if plus else u[None])
        self.weights = (-1.0, 1.0) if plus else (-2.0,)

    def columns(self) -> Tensor:
        """Return the unit normals as columns (features, vectors * blocks), each zero outside of its block."""
        units = functional.normalize(self.normals, dim=-1)
        return torch.cat([torch.block_diag(*(block[:, None] for block in vector)) for vector in units], dim=1)

    def weighted(self, columns: Tensor) -> Tensor:
        """Return columns times their weights, so that H - I is `weighted(columns) @ columns.T`."""
        parts = zip(self.weights, columns.chunk(len(self.weights), dim=1), strict=True)
        return torch.cat([weight * part for weight, part in parts], dim=1)


class Reflections(nn.Module):
    """The reflections of one adapter at one layer."""

    def __init__(self, weight: Tensor, config: EtherConfig) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.inner = Reflection(inputs, config)
        self.outer = Reflection(outputs, config) if config.two_sided else None

    def thin(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return up (outputs, n) and down (inputs, n): the update of a base weight (outputs, inputs) is up @ down.T."""
        inner = self.inner.columns()
        up, down = weight @ self.inner.weighted(inner), inner  # W (H - I)
        if self.outer is None:
            return up, down
        outer = self.outer.columns()
        seen = weight.T @ outer  # (H' - I) W H = outer' (outer^T W) + (H' - I) W (H - I)
        seen = seen + down @ (up.T @ outer)
        return torch.cat([up, self.outer.weighted(outer)], dim=1), torch.cat([down, seen], dim=1)


class EtherLayer(BranchLayer):
    """A linear layer whose weight is reflected. Its update depends on the base weight, so a merge keeps it."""

    adapter_layer_names = ("ether_branch",)
    other_param_names = ("merged_updates",)
    make_branch = Reflections

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.merged_updates: dict[str, Tensor] = {}

    def _thin(self, adapter: str) -> tuple[Tensor, Tensor]:
        branch = cast(Reflections, self.branch(adapter))
        return branch.thin(self.get_base_weight().to(branch.inner.normals))

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, in the dtype of the adapter's weights."""
        up, down = self._thin(adapter)
        return functional.linear(functional.linear(x.to(down.dtype), down.T), up)

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return the difference (outputs, inputs) that an adapter makes, or has made where it is merged.

        Raises ValueError for an adapter that is not merged where another one is: the base weight is not there.
        """
        if adapter in self.merged_updates:
            return self.merged_updates[adapter]
        if self.merged_updates:
            raise ValueError(f"ETHER adapters merge one at a time: unmerge {', '.join(self.merged_updates)} first.")
        up, down = self._thin(adapter)
        return up @ down.T

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put one adapter into the base weight and keep the difference, as `AdditiveTunerLayer.merge`."""
        wanted = [name for name in adapter_names or self.active_adapters if name in self._get_available_adapters()]
        updates = {name: self.get_delta_weight(name) for name in wanted if name not in self.merged_updates}
        if len(updates) > 1:
            raise ValueError(f"ETHER adapters merge one at a time, got {', '.join(updates)}: name one of them.")
        super().merge(safe_merge, adapter_names)
        self.merged_updates |= updates

    def unmerge(self) -> None:
        """Take the merged update out again, as `AdditiveTunerLayer.unmerge`."""
        super().unmerge()
        self.merged_updates.clear()


class EtherModel(LinearTuner):
    """A model with ETHER or ETHER+ adapters."""

    prefix = "ether_"
    tuner_layer_cls = EtherLayer


register_tuner("ether", EtherConfig, EtherModel, EtherModel.prefix)
