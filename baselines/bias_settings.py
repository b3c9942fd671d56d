"""Biases that a merged model gains, and the settings of its configuration without which it would be loaded without.

Some architectures have them by choice: `attention_bias` and `mlp_bias` of Llama and its relatives.
"""

import copy
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

SETTINGS = ("attention_bias", "mlp_bias")


def settings_with(model: PreTrainedModel, biases: Iterable[str]) -> Sequence[str] | None:
    """Return the settings, all off by now, with which the model's class has these parameters; None where none do."""
    available = [name for name in SETTINGS if getattr(model.config, name, None) is False]
    for count in range(len(available) + 1):
        for names in combinations(available, count):
            if set(biases) <= _biases(model, names):
                return names
    return None


def declare(model: PreTrainedModel, settings: Sequence[str]) -> None:
    """Switch settings on, and give a zero bias to every layer that has one with them."""
    for path in sorted(_biases(model, settings)):
        layer: Any = model.get_submodule(path.removesuffix(".bias"))
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features), requires_grad=False)
    for name in settings:
        setattr(model.config, name, True)


def _biases(model: PreTrainedModel, settings: Sequence[str]) -> set[str]:
    config = copy.deepcopy(model.config)
    for name in settings:
        setattr(config, name, True)
    with torch.device("meta"):
        empty: Any = type(model)(config)
    return {path for path, _ in empty.named_parameters() if path.endswith(".bias")}
