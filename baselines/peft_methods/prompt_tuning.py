"""What PEFT's prompt tuning lacks on an encoder: a head that reads `<s>`, and text that keeps its positions.

PEFT 0.21.2 puts the prompt before the text. The heads of RoBERTa, BERT and DeBERTa take what stands first, which would
be a virtual token; and learned positions, which Lester's T5 does not have, would move the text to places that the model
may never have seen in pre-training. Source: Lester et al. 2021, arXiv:2104.08691; both remedies are ours.

And PEFT's `disable_adapter` ends in UnboundLocalError on every model that does not generate, with any kind of prompt.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

OFF = "prompt_is_off"
PAST_LENGTHS = ("past_key_values_length", "cache_length")  # transformers up to 5.23, and from 5.24


def read_behind_prompt(model: Any) -> None:
    """Make the head read the text's own first token, and number the text first and the virtual tokens after it.

    A language model has no such head, and a decoder's rotary positions are left alone. Raises ValueError for a
    classifier whose head has no layer that takes the first token.
    """
    if model.active_peft_config.task_type == "CAUSAL_LM":
        return
    length = model.active_peft_config.num_virtual_tokens
    base = model.get_base_model()
    _hook(pooling_layer(base), lambda _, arguments, options: ((arguments[0][:, length:], *arguments[1:]), options))
    for module in _with_positions(base):
        _hook(module, _text_first(length))
    model.disable_adapter = partial(disabled, model)


def number_from_the_text(model: Any) -> None:
    """Make the text behind a prefix of keys and values keep its positions; a decoder's rotary ones are left alone.

    The model's forward raises RuntimeError where its embeddings are told the prefix's length under no known name.
    """
    for module in _with_positions(model.get_base_model()):
        _hook(module, _without_past)
    if model.active_peft_config.task_type != "CAUSAL_LM":
        model.disable_adapter = partial(disabled, model)


def _without_past(
    module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    known = [name for name in PAST_LENGTHS if name in options]
    if not known:  # positions would be those behind the prefix, without a word
        raise RuntimeError(
            f"transformers {transformers.__version__} calls {type(module).__name__} with {', '.join(options) or 'no'} "
            f"options, and prefix tuning needs {' or '.join(PAST_LENGTHS)} among them to keep the text's positions: "
            "install the pinned transformers, or add the new name to PAST_LENGTHS in "
            "baselines/peft_methods/prompt_tuning.py."
        )
    return arguments, options | dict.fromkeys(known, 0)


@contextmanager
def disabled(model: Any) -> Iterator[None]:
    """Let a model that does not generate be the base model for the length of a `with`.

    PEFT 0.21.2's own context wants to exchange `prepare_inputs_for_generation`, which such a model lacks.
    """
    before = {"forward": vars(model).get("forward"), "_adapters_disabled": model._adapters_disabled}
    hooked = [module for module in model.get_base_model().modules() if hasattr(module, OFF)]
    model.forward, model._adapters_disabled = model.base_model.forward, True
    for module in hooked:
        setattr(module, OFF, True)
    try:
        yield
    finally:
        for module in hooked:
            setattr(module, OFF, before["_adapters_disabled"])
        model._adapters_disabled = before["_adapters_disabled"]
        if before["forward"] is None:
            del model.forward
        else:
            model.forward = before["forward"]


def _hook(module: nn.Module, change: Callable[..., Any]) -> None:
    """Let `change(module, arguments, options)` give a module's arguments, unless the prompt is switched off."""

    def apply(hooked: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return None if getattr(hooked, OFF) else change(hooked, arguments, options)

    setattr(module, OFF, False)  # on the module, so that a copy of the model has a switch of its own
    module.register_forward_pre_hook(apply, with_kwargs=True)


def _with_positions(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if getattr(module, "position_embeddings", None) is not None]


def _text_first(length: int) -> Any:
    """Return a hook that numbers `length` virtual tokens, which stand before the text, after the text."""

    def number(module: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        embedded: Tensor | None = options.get("inputs_embeds")
        if embedded is None:
            return arguments, options
        first = 0 if module.position_embeddings.padding_idx is None else module.position_embeddings.padding_idx + 1
        text, most = embedded.shape[1] - length, module.position_embeddings.num_embeddings - first
        if text + length > most:
            remedy = f"data.max_length={most - length}" if most - length > 3 else "fewer virtual tokens"
            asked = f"a row of {text} tokens and {length} virtual tokens"
            raise ValueError(f"{asked} are more than the model's {most} positions: {remedy}")
        positions = torch.arange(embedded.shape[1], device=embedded.device).roll(length) + first
        return arguments, options | {"position_ids": positions[None].expand(embedded.shape[:2])}

    return number


def pooling_layer(model: nn.Module) -> nn.Module:
    """Return the module that takes the first token: a pooler where the model has one, else its `classifier`."""
    poolers = [module for path, module in model.named_modules() if path.split(".")[-1] == "pooler"]
    pooler = poolers[0] if poolers else getattr(model, "classifier", None)
    if pooler is None:
        raise ValueError(
            f"{type(model).__name__} has neither a pooler nor a classifier: prompt tuning has nothing to read."
        )
    return pooler
