"""A linear projection with LoRTA updates. It owns no weights: all layers read the factors that the model holds."""

import torch
from peft.utils.quantization_utils import resolve_quantization_backend
from torch import Tensor, nn

from lorta.peft_registry import AdditiveTunerLayer
from lorta.tuner.factors import MODES, Factors, Position, delta_weight, factored_update, low_rank_pair

PREFIX = "lorta_"
FACTOR_NAMES = tuple(PREFIX + mode for mode in MODES)


class LortaLinear(AdditiveTunerLayer):
    """A wrapped `nn.Linear` whose output gets, per active adapter, the update of its slice of the joint tensor."""

    adapter_layer_names = FACTOR_NAMES
    other_param_names = ("r", "scaling", "position", "lorta_dropout")

    def __init__(self, base_layer: nn.Linear, shared: dict[str, nn.ParameterDict]) -> None:
        """`shared` maps each name of `FACTOR_NAMES` to the container that holds that factor of every adapter."""
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(base_layer)
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        # Unregistered, or a state dict would hold every factor once per layer. The container and not its entries:
        # PEFT replaces entries when it casts, moves or loads them.
        for name, container in shared.items():
            object.__setattr__(self, name, container)
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.position: dict[str, Position] = {}
        self.lorta_dropout = nn.ModuleDict()
        self.merged_adapters = []
        self.train(base_layer.training)

    def update_layer(self, adapter: str, r: int, alpha: float, position: Position, dropout: float) -> None:
        """Let an adapter, whose factors exist already, act on this layer at the given position."""
        self.r[adapter] = r
        self.scaling[adapter] = alpha / r
        self.position[adapter] = position
        # a new module is in training mode, whatever the model around it is in
        self.lorta_dropout[adapter] = (nn.Dropout(dropout) if dropout else nn.Identity()).train(self.training)

    def factors(self, adapter: str, device: torch.device | None = None) -> Factors:
        """Return an adapter's factors, on another device when layers are spread over several."""
        return Factors(*(getattr(self, name)[adapter].to(device) for name in FACTOR_NAMES))

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return one adapter's dense update, scaling included, (outputs, inputs), in the dtype of the factors."""
        with torch.no_grad():
            return delta_weight(self.factors(adapter), self.position[adapter], self.scaling[adapter])

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True: an update is exactly a LoRA of the same rank."""
        return True

    def update(self, x: Tensor, adapter: str) -> Tensor:
        """Return one adapter's update of the output, factored: the dense matrix is never built."""
        factors = self.factors(adapter, x.device)
        down, up = low_rank_pair(factors, self.position[adapter], self.scaling[adapter])
        x = self._cast_input_dtype(x, down.dtype)
        return factored_update(self.lorta_dropout[adapter](x), down, up)

    def _get_available_adapters(self) -> set[str]:
        # PEFT asks the factor containers, which also know the adapters that leave this layer alone
        return set(self.position)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's version also casts to the dtype of the base layer, which would round float32 factors
        device = device or self.weight.device
        for name in FACTOR_NAMES:
            container = getattr(self, name)
            if adapter_name in container and not container[adapter_name].is_meta:
                container[adapter_name].data = container[adapter_name].data.to(device)
