"""Projections become pairs of low-rank linear layers. Source: Guo et al. 2023, arXiv:2310.10700, and its release."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lorta.geometry import Geometry


def compress(model: nn.Module, geometry: Geometry, ranks: Mapping[str, int], approximate: bool = True) -> None:
    """Put a pair in the place of every projection; `ranks` maps roles to ranks, the first role of a fused module.

    Without `approximate` the pairs are left empty, for weights that are loaded next. Embeddings, pooler and head stay.
    """
    places = [(path, place) for path, _ in model.named_modules() if (place := geometry.locate(path))]
    for path, (_, roles) in places:
        parent, _, name = path.rpartition(".")
        linear = model.get_submodule(path)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"PELA compresses nn.Linear modules; {path} is a {type(linear).__name__}.")
        setattr(model.get_submodule(parent), name, low_rank_pair(linear, ranks[roles[0]], approximate))


def low_rank_pair(linear: nn.Linear, rank: int, approximate: bool = True) -> nn.Sequential:
    """Return inputs -> rank -> outputs, whose product is the best approximation of the weight of that rank."""
    place: dict[str, Any] = {"device": linear.weight.device, "dtype": linear.weight.dtype}
    bias = linear.bias is not None
    first: Any = skip_init(nn.Linear, linear.in_features, rank, bias=False, **place)  # draws no random numbers
    second: Any = skip_init(nn.Linear, rank, linear.out_features, bias=bias, **place)
    if approximate:
        left, values, right = torch.linalg.svd(linear.weight.detach().float(), full_matrices=False)
        roots = values[:rank].sqrt()
        with torch.no_grad():
            first.weight.copy_(roots[:, None] * right[:rank])
            second.weight.copy_(left[:, :rank] * roots)
            if bias:
                second.bias.copy_(linear.bias)
    return nn.Sequential(first, second).train(linear.training)


def perturbation(model: nn.Module, originals: Mapping[str, Tensor], bound: float) -> Tensor:
    """Return the mean over pairs of (largest absolute change of an entry - bound)^2. `originals`: path -> weight."""
    terms: list[Tensor] = []
    for path, weight in originals.items():
        first, second = model.get_submodule(path).children()
        change = second.weight @ first.weight - weight  # pyright: ignore[reportOperatorIssue]
        terms.append((change.abs().max() - bound) ** 2)
    return torch.stack(terms).mean()
