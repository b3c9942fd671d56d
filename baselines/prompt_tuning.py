"""What PEFT's prompt tuning lacks on an encoder: a head that reads `<s>` and not the first virtual token.

PEFT 0.21.2 puts the prompt before the text, and the heads of RoBERTa, BERT and DeBERTa take what stands first. Here the
text's own first token keeps its part. Source: Lester et al. 2021, arXiv:2104.08691, where no head pools like this.
"""

from typing import Any

from torch import Tensor, nn


def pool_behind_prompt(model: Any) -> None:
    """Cut the virtual tokens off what the head's pooling layer gets, (batch, tokens, hidden).

    A language model pools nothing and is left alone. Raises ValueError for a classifier without such a layer.
    """
    if model.active_peft_config.task_type == "CAUSAL_LM":
        return
    length = model.active_peft_config.num_virtual_tokens

    def cut(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return arguments[0][:, length:], *arguments[1:]

    pooling_layer(model.get_base_model()).register_forward_pre_hook(cut)


def pooling_layer(model: nn.Module) -> nn.Module:
    """Return the module that takes the first token: a pooler where the model has one, else its `classifier`."""
    poolers = [module for path, module in model.named_modules() if path.split(".")[-1] == "pooler"]
    found = poolers[0] if poolers else getattr(model, "classifier", None)
    if found is None:
        raise ValueError(
            f"{type(model).__name__} has neither a pooler nor a classifier: prompt tuning has nothing to read."
        )
    return found
