"""Batches whose rows ask for adapters of their own: PEFT's `adapter_names`."""

from collections.abc import Callable, Sequence

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

BASE_ROWS = "__base__"  # PEFT's name for rows that no adapter acts on


def check_rows(layer: BaseTunerLayer, x: Tensor, names: Sequence[str]) -> None:
    """Raise ValueError where an adapter is merged, or where there is not one name for each row."""
    if layer.merged:
        raise ValueError("adapter_names cannot be used while an adapter is merged: call unmerge_adapter first.")
    if len(names) != len(x):
        raise ValueError(f"adapter_names must name each of the {len(x)} rows of the batch, got {len(names)} names.")


def rows_of(names: Sequence[str], name: str, device: torch.device) -> Tensor:
    """Return the numbers of the rows that ask for one adapter."""
    return torch.tensor([row for row, asked in enumerate(names) if asked == name], device=device)


def apply_by_row(x: Tensor, names: Sequence[str], apply: Callable[[Tensor, list[str]], Tensor]) -> Tensor:
    """Return the outputs of a batch: `apply(rows, adapters)` gives those of rows with one adapter, or with none.

    For layers that are no sum of the base layer and an update.
    """
    parts = {name: rows_of(names, name, x.device) for name in sorted(set(names))}
    outputs = [apply(x[rows], [] if name == BASE_ROWS else [name]) for name, rows in parts.items()]
    order = torch.cat(list(parts.values())).argsort()
    return torch.cat(outputs)[order]
