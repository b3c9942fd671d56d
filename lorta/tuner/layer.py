"""A linear projection with LoRTA updates. It owns no weights: all layers read the factors that the model holds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lorta.shared_factors import SharedFactorLinear
from lorta.tuner.factors import FACTORS, OWN, Order, Position, block_rows, factor_axes, low_rank_pair, slice_of
from lorta.tuner.products import HeadsOnInput, HeadsOnOutput, InputGroup, wide

PREFIX = "lorta_"


class LortaLinear(SharedFactorLinear):
    """A wrapped linear layer whose output gets, per active adapter, the update of its slice of the joint tensor."""

    adapter_layer_names = tuple(PREFIX + name for name in FACTORS)
    other_param_names = (*SharedFactorLinear.other_param_names, "order", "group")

    def __init__(self, base_layer: nn.Module, shared: dict[str, nn.ParameterDict]) -> None:
        super().__init__(base_layer, shared)
        self.order: dict[str, Order] = {}
        self.group: dict[str, tuple[InputGroup, int]] = {}  # and this layer's number in it

    def update_layer(self, adapter: str, scaling: float, position: Position, dropout: float, order: Order) -> None:
        """Let an adapter, whose factors exist already, act on this layer at the given position."""
        super().update_layer(adapter, scaling, position, dropout)
        self.order[adapter] = order
        self.group.pop(adapter, None)

    def cp_factors(self, adapter: str, device: torch.device | None = None) -> dict[str, Tensor]:
        """Return the factors that this layer's update is made of, by their names in `factors.factor_axes`."""
        own = PREFIX + ("feedforward_" if self.position[adapter].feedforward else "")
        containers = {
            name: getattr(self, (own if name in OWN else PREFIX) + name) for name in factor_axes(self.order[adapter])
        }
        return {name: container[adapter].to(device) for name, container in containers.items()}

    def low_rank_pair(self, adapter: str, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Return (down, up) of the layer's update `up @ down.T`; the scaling is in the one that the heads divide."""
        position = self.position[adapter]
        factors = self.cp_factors(adapter, device)
        part = slice_of(factors, self.order[adapter], position, self.scaling[adapter])
        return low_rank_pair(part, position.heads_on_output)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output plus the updates of the active adapters, in the base output's dtype."""
        adapter = None if args or kwargs else self._fusible(x)
        return super().forward(x, *args, **kwargs) if adapter is None else self._fused(x, adapter)

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, factored: the dense matrix is never built."""
        if adapter not in self.group or not self._may_share(x, adapter):
            return super().update(x, adapter)
        product, blocks, head_dim = self._shared(x, adapter)
        return functional.linear(product, wide(blocks, head_dim))

    def _fusible(self, x: Tensor) -> str | None:
        """Return the one adapter to apply when it and the base layer can run as one operation, else None."""
        base = self.base_layer
        active = [name for name in self.active_adapters if name in self.position]
        if len(active) != 1 or self.disable_adapters or self.merged or type(base) is not nn.Linear:
            return None
        bias = base.bias
        frozen = not base.weight.requires_grad and not (bias is not None and bias.requires_grad)
        hooked = base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks
        hooked = hooked or "forward" in vars(base)  # accelerate's hooks replace the method
        hidden = getattr(self, PREFIX + "hidden")[active[0]]
        alike = x.dtype == base.weight.dtype == hidden.dtype and x.device == base.weight.device == hidden.device
        ready = alike and frozen and not hooked and self._may_share(x, active[0])
        return active[0] if ready and not torch.is_autocast_enabled(x.device.type) else None

    def _may_share(self, x: Tensor, adapter: str) -> bool:
        # dropout draws anew for each projection; a compiler finds common products itself and traces no weak reference
        dropping = self.training and isinstance(self.adapter_dropout[adapter], nn.Dropout)
        return not dropping and not torch.compiler.is_compiling() and not x.is_inference() and x.numel() > 0

    def _fused(self, x: Tensor, adapter: str) -> Tensor:
        weight, bias = self.base_layer.weight, self.base_layer.bias
        if adapter in self.group:
            return HeadsOnOutput.apply(x, weight, bias, *self._shared(x, adapter))
        position = self.position[adapter]
        part = slice_of(self.cp_factors(adapter), self.order[adapter], position, self.scaling[adapter])
        if position.heads_on_output:
            product = functional.linear(x, part.hidden.T)
            return HeadsOnOutput.apply(x, weight, bias, product, part.blocks, part.head_dim)
        return HeadsOnInput.apply(x, weight, bias, part.blocks, part.head_dim, part.hidden)

    def _shared(self, x: Tensor, adapter: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x @ A, block rows, head_dim) of this layer, computed by the first member of its group."""
        group, member = self.group[adapter]
        factors, order = self.cp_factors(adapter, x.device), self.order[adapter]
        found = group.find(x, member)
        if found is None:
            hidden = _of_layer(factors["hidden"], order, group.position)
            rows = block_rows(factors, order, group.position, self.scaling[adapter])
            product = functional.linear(self._cast_input_dtype(x, hidden.dtype), hidden.T)
            group.keep(x, member, product, rows)
            found = product, rows[member]
        return *found, _of_layer(factors["head_dim"], order, group.position)


def _of_layer(factor: Tensor, order: Order, position: Position) -> Tensor:
    return factor[position.layer_row] if order.separate == "layers" else factor
