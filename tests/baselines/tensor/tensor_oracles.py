"""A model's whole update tensor, built entry by entry from an adapter's factors in float64, for the tensor family."""

from typing import Any

import torch

from baselines.tensor.places import describe_all
from lorta.geometry import Geometry

ORDER = ("q", "k", "v", "o", "gate", "up", "down")


def geometry(
    layers: int = 2, heads: int = 2, head_dim: int = 3, blocks: int = 2, kv_heads: int | None = None
) -> Geometry:
    """Return a Llama whose feed-forward width is `blocks` times its hidden width, heads * head_dim."""
    hidden = heads * head_dim
    return Geometry.from_config(
        {
            "model_type": "llama",
            "num_hidden_layers": layers,
            "hidden_size": hidden,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads or heads,
            "intermediate_size": blocks * hidden,
        }
    )


def draw(model_class: Any, config: Any, shape: Geometry, roles: tuple[str, ...], seed: int) -> dict[str, torch.Tensor]:
    """Attach a config to a geometry and return factors of its sizes, normal in float64."""
    config.geometry = describe_all(shape, roles)
    model_class.check(config, config.geometry)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(factor.shape, generator=generator, dtype=torch.float64)
        for name, factor in model_class.initial(config).items()
    }


def update(model_class: Any, config: Any, factors: dict[str, torch.Tensor], layer: int, role: str) -> torch.Tensor:
    """Return the method's own update of one projection, (outputs, inputs), scaling included."""
    down, up = model_class.tuner_layer_cls.pair(config, factors, role, model_class.rows_of(config, layer, role))
    return config.scaling * up @ down.T


def slots(layers: int, roles: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return (layer, role) in the order of the tensor's slices."""
    return [(layer, role) for layer in range(layers) for role in ORDER if role in roles]
