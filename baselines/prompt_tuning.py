"""What PEFT's prompt tuning lacks on an encoder: a head that reads `<s>` and not the first virtual token.

PEFT 0.21.2 puts the prompt before the text, and the heads of RoBERTa, BERT and DeBERTa take what stands first. The text's
own first token keeps its part here, as in Lester et al. 2021, arXiv:2104.08691, where prompts only add context.
"""

from typing import Any

from torch import Tensor, nn


def pool_behind_prompt(model: Any) -> None:
    """Cut the virtual tokens off what reaches the head's pooling layer, (batch, tokens, hidden). Raises ValueError if none."""
    length = model.active_peft_config.num_virtual_tokens

    def cut(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return arguments[0][:, length:], *arguments[1:]

    pooling_layer(model.get_base_model()).register_forward_pre_hook(cut)


def pooling_layer(model: nn.Module) -> nn.Module:
    """Return the module that takes the first token: a pooler where the model has one, else its `classifier`."""
    poolers = [module for path, module in model.named_modules() if path.split(".")[-1] == "pooler"]
    found = poolers[0] if poolers else getattr(model, "classifier", None)
    if found is None:
        raise ValueError(f"{type(model).__name__} has neither a pooler nor a classifier: prompt tuning has nothing to read.")
    return found
