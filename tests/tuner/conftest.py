"""Tiny random backbones whose weights are large enough for an update to show in the logits."""

from collections.abc import Callable

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import PreTrainedModel
from tuner_backbones import batch, build_backbone

from lorta.tuner import LortaConfig


@pytest.fixture(autouse=True)
def in_one_thread(one_thread):
    """The products of these tests are small."""


@pytest.fixture
def backbone() -> Callable[..., PreTrainedModel]:
    """Return build(name, **config changes); the same name always has the same weights."""
    return build_backbone


@pytest.fixture
def adapted(backbone, randomise):
    """Return build(name, adapter, **settings): a model whose adapter changes its logits."""

    def build(name="roberta", adapter="default", **settings):
        config = LortaConfig(**({"r": 3, "alpha": 2.0} | settings))
        return randomise(get_peft_model(backbone(name), config, adapter_name=adapter), adapter).eval()

    return build


@pytest.fixture
def inputs() -> Callable[[str], dict[str, torch.Tensor]]:
    """Return inputs(name): three rows of model inputs."""
    return batch


@pytest.fixture
def tokens() -> torch.Tensor:
    return batch("roberta")["input_ids"]


@pytest.fixture
def randomise() -> Callable[..., nn.Module]:
    """Return randomise(model, adapter): fill an adapter's factors, so that its update is no longer zero."""

    def fill(model: nn.Module, adapter: str = "default", seed: int = 2) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if ".lorta_" in name and name.endswith(f".{adapter}"):
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        return model

    return fill


@pytest.fixture
def layers(backbone, randomise):
    """The adapted q, k and v of a first layer, which share x @ A, and the model they belong to."""

    def build(name="roberta", **settings):
        model = randomise(get_peft_model(backbone(name), LortaConfig(**({"r": 3} | settings))))
        attention = model.base_model.model.roberta.encoder.layer[0].attention.self
        return model, (attention.query, attention.key, attention.value)

    return build
