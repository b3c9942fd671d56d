"""Dropout switched off in whatever form a model has it: modules, numbers of modules, and numbers of configurations.

TRL's `disable_dropout` finds `nn.Dropout` only. Most decoders hand a number to their attention kernel (Llama's
`attention_dropout`), some read it from the configuration at every step (Falcon, GPT-Neo), and PEFT keeps numbers by
adapter (LoKr's `rank_dropout`) and a module of its own (BOFT's `MultiplicativeDropoutLayer`).
"""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedConfig


@contextmanager
def without_dropout(*models: nn.Module) -> Iterator[None]:
    """Within the block no dropout rate of the models is above 0; afterwards they are as they were."""
    kept = [(values, key, values[key]) for model in models for values, key in _rates(model)]
    for values, key, _ in kept:
        values[key] = 0.0
    try:
        yield
    finally:
        for values, key, rate in kept:
            values[key] = rate


def _rates(model: nn.Module) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """Yield (attributes, name) of every dropout rate above 0, each once."""
    seen: set[int] = set()
    for module in model.modules():
        holders = [module, *(value for value in vars(module).values() if isinstance(value, PreTrainedConfig))]
        for holder in holders:
            if id(holder) not in seen:
                seen.add(id(holder))
                yield from _rates_in(vars(holder), "drop" in type(holder).__name__.lower())


def _rates_in(values: MutableMapping[str, Any], all_of_them: bool) -> Iterator[tuple[MutableMapping[str, Any], str]]:
    """Yield the rates of one object's attributes: by name, or the `p` of a module that is called dropout."""
    for name, value in values.items():
        if "drop" not in name.lower() and not (all_of_them and name == "p"):
            continue
        if isinstance(value, dict):  # by adapter
            yield from ((value, key) for key, rate in value.items() if _is_rate(rate))
        elif _is_rate(value):
            yield values, name


def _is_rate(value: object) -> bool:
    return isinstance(value, float) and 0 < value <= 1
