"""Tiny random backbones, and the adapters of conf/adapter as the harness builds them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_backbones import build_backbone

from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.places import CONF


@pytest.fixture
def backbone() -> Callable[..., Any]:
    """Return build(name, device, dtype, **config changes); the same name always has the same weights."""
    return build_backbone


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(3, 48, (3, 7), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def adapter() -> Callable[..., Any]:
    """Return load(name, rank, **changes of its PeftConfig)."""

    def load(name: str, rank: int = 5, **changes: Any) -> Any:
        problems = Problems()
        (cell,) = compose_cells({"adapter": [name], "rank": [rank]}, CONF, problems)
        assert not problems
        node = cell.config["adapter"]
        return build(node | {"config": node["config"] | changes} if changes else node)

    return load


@pytest.fixture
def randomise() -> Callable[[torch.nn.Module], None]:
    """Return randomise(model): give every trainable weight a value, so that nothing is zero by its start."""

    def fill(model: torch.nn.Module) -> None:
        torch.manual_seed(2)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.3)

    return fill
