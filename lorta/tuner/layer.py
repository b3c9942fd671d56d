"""A linear projection with LoRTA updates. It owns no weights: all layers read the factors that the model holds."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lorta.peft_extension.shared_factors import SharedFactorLinear
from lorta.tuner.factors import (
    FACTORS,
    OWN,
    Order,
    Position,
    Slice,
    factor_axes,
    joint_slices,
    low_rank_pair,
    slice_of,
)
from lorta.tuner.factors import wide as wide_matrix
from lorta.tuner.products import (
    HeadsOnInput,
    HeadsOnOutput,
    InputGroup,
    InputProduct,
    is_transformed,
    product_dtype,
)
from lorta.tuner.wide_tables import current

PREFIX = "lorta_"
HIDDEN = PREFIX + "hidden"


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

    def cp_factors(
        self, adapter: str, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Return the factors that this layer's update is made of.

        Args:
            adapter: name of the adapter.
            device: where to return them; None: where they are.
            dtype: None: their own.

        Returns:
            Name of a factor, such as "hidden" or "layers" -> (rows, r). An order of the tensor has some of the names.

        Example:
            >>> from peft import get_peft_model
            >>> from transformers import LlamaConfig, LlamaForCausalLM
            >>> from lorta.tuner import LortaConfig
            >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
            >>> model = get_peft_model(LlamaForCausalLM(shape), LortaConfig(r=3))
            >>> layer = model.base_model.model.model.layers[0].self_attn.q_proj
            >>> {name: tuple(factor.shape) for name, factor in layer.cp_factors("default").items()}
            {'hidden': (16, 3), 'head_dim': (8, 3), 'heads': (2, 3), 'layers': (2, 3), 'matrices': (4, 3)}
        """
        own = PREFIX + ("feedforward_" if self.position[adapter].feedforward else "")
        containers = {
            name: getattr(self, (own if name in OWN else PREFIX) + name) for name in factor_axes(self.order[adapter])
        }
        return {name: container[adapter].to(device, dtype) for name, container in containers.items()}

    def low_rank_pair(
        self, adapter: str, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the layer's update as a product of two thin matrices: it is `up @ down.T`.

        Args:
            adapter: name of the adapter.
            device: where to compute; None: where the factors are.
            dtype: in which the products are taken; None: the dtype of the factors.

        Returns:
            down (inputs, r) and up (outputs, r). The scaling is in the matrix that the heads divide.

        Example:
            >>> from peft import get_peft_model
            >>> from transformers import LlamaConfig, LlamaForCausalLM
            >>> from lorta.tuner import LortaConfig
            >>> shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
            >>> model = get_peft_model(LlamaForCausalLM(shape), LortaConfig(r=3))
            >>> layer = model.base_model.model.model.layers[0].self_attn.q_proj
            >>> down, up = layer.low_rank_pair("default")
            >>> down.shape, up.shape
            (torch.Size([16, 3]), torch.Size([16, 3]))
        """
        return low_rank_pair(self._slice(adapter, device, dtype), self.position[adapter].heads_on_output)

    def _slice(self, adapter: str, device: torch.device | None, dtype: torch.dtype | None = None) -> Slice:
        factors = self.cp_factors(adapter, device, dtype)
        return slice_of(factors, self.order[adapter], self.position[adapter], self.scaling[adapter])

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output plus the updates of the active adapters, in the base output's dtype."""
        adapter = None if args or kwargs else self._fusible(x)
        return super().forward(x, *args, **kwargs) if adapter is None else self._fused(x, adapter)

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, factored: the dense matrix is never built."""
        if adapter not in self.group or not self._may_share(x, adapter):
            return super().update(x, adapter)
        wide, (_, product) = self._shared(x, adapter)
        update = functional.linear(product.T, wide)
        return update.view(*x.shape[:-1], -1)

    def _fusible(self, x: Tensor) -> str | None:
        """Return the one adapter to apply when it and the base layer can run as one operation, else None."""
        base = self.base_layer
        active = [name for name in self.active_adapters if name in self.position]
        if len(active) != 1 or self.merged_adapters or self._disable_adapters or type(base) is not nn.Linear:
            return None
        weight, bias = base.weight, base.bias
        if weight.requires_grad or (bias is not None and bias.requires_grad):
            return None
        hooked = base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks
        if hooked or "forward" in vars(base):  # accelerate's hooks replace the method
            return None
        dtype = product_dtype(x, weight, vars(self)[HIDDEN][active[0]])
        return active[0] if dtype is not None and self._may_share(x, active[0]) else None

    def _may_share(self, x: Tensor, adapter: str) -> bool:
        # dropout draws anew for each projection; a compiler finds common products itself and traces no weak reference
        if self.training and isinstance(self.adapter_dropout[adapter], nn.Dropout):
            return False
        if torch.compiler.is_compiling() or is_transformed():
            return False
        return not x.is_inference() and x.numel() > 0

    def _fused(self, x: Tensor, adapter: str) -> Tensor:
        base = self.base_layer.weight, self.base_layer.bias
        if adapter in self.group:
            wide, reading = self._shared(x, adapter)
            output, *reading[:] = HeadsOnOutput.apply(*reading, *base, wide)
            return output
        position, dtype = self.position[adapter], product_dtype(x, vars(self)[HIDDEN][adapter])
        hidden, wide = self._thin(x, adapter, position, dtype)
        x = x.to(dtype)
        if position.heads_on_output:
            product, alias = InputProduct.apply(x, hidden)
            return HeadsOnOutput.apply(alias, product, *base, wide[0])[0]
        return HeadsOnInput.apply(x, *base, wide[0], hidden)

    def _thin(
        self, x: Tensor, adapter: str, position: Position, dtype: torch.dtype | None
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Return hidden and the wide matrix of each projection, of this layer's position or of its group's."""
        order, scaling, container = self.order[adapter], self.scaling[adapter], vars(self)[HIDDEN]
        hidden, tables = container[adapter], current(container)
        if tables is not None and dtype is not None and hidden.device == x.device:
            make = partial(self.cp_factors, adapter)
            if (wide := tables.find(adapter, scaling, position, dtype, make)) is not None:
                return hidden, wide
        factors = self.cp_factors(adapter, x.device)
        if position is not self.position[adapter]:
            return joint_slices(factors, order, position, scaling)
        part = slice_of(factors, order, position, scaling)
        return part.hidden, [wide_matrix(part.blocks, part.head_dim)]

    def _shared(self, x: Tensor, adapter: str) -> tuple[Tensor, list[Tensor]]:
        """Return (this layer's wide matrix, aliases to read x and (x @ A).T through), made by the first to ask."""
        group, member = self.group[adapter]
        shared = group.find(x, member)
        if shared is None:
            dtype = product_dtype(x, vars(self)[HIDDEN][adapter])
            hidden, wide = self._thin(x, adapter, group.position, dtype)
            cast = self._cast_input_dtype(x, hidden.dtype) if dtype is None else x.to(dtype)
            product, alias = InputProduct.apply(cast, hidden)
            shared = wide[member], [alias, product]
            group.keep(x, member, wide, shared[1])
        return shared
