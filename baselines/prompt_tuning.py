"""What PEFT's prompt tuning lacks on an encoder: a head that reads `<s>`, and text that keeps its positions.

PEFT 0.21.2 puts the prompt before the text. The heads of RoBERTa, BERT and DeBERTa take what stands first, which would
be a virtual token; and learned positions, which Lester's T5 does not have, would move the text to places that the model
may never have seen in pre-training. Source: Lester et al. 2021, arXiv:2104.08691; both remedies are ours.
"""

from typing import Any

import torch
from torch import Tensor, nn


def read_behind_prompt(model: Any) -> None:
    """Make the head read the text's own first token, and number the text first and the virtual tokens after it.

    A language model has no such head, and a decoder's rotary positions are left alone. Raises ValueError for a
    classifier whose head has no layer that takes the first token.
    """
    if model.active_peft_config.task_type == "CAUSAL_LM":
        return
    length = model.active_peft_config.num_virtual_tokens
    base = model.get_base_model()
    pooling_layer(base).register_forward_pre_hook(lambda _, arguments: (arguments[0][:, length:], *arguments[1:]))
    for module in _with_positions(base):
        module.register_forward_pre_hook(_text_first(length), with_kwargs=True)


def number_from_the_text(model: Any) -> None:
    """Make the text behind a prefix of keys and values keep its positions; a decoder's rotary ones are left alone."""

    def forget(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        return arguments, options | ({"past_key_values_length": 0} if "past_key_values_length" in options else {})

    for module in _with_positions(model.get_base_model()):
        module.register_forward_pre_hook(forget, with_kwargs=True)


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
    found = poolers[0] if poolers else getattr(model, "classifier", None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has neither a pooler nor a classifier: prompt tuning has nothing to read."
        )
    return found
