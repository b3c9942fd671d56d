"""Log-probabilities of labels for TRL's trainers on a CPU, from the logits of the positions that have a label.

TRL 1.16 projects hidden states through the language head in tiles, without holding all logits (trl.trainer.utils,
add_fused_lm_head). Its kernels for that are for GPUs. On a CPU it takes every position, of prompts and padding too, in
float32 and twice: 55% of a training step of SmolLM2-135M on chats of which the answers alone are learnt.
"""

from functools import wraps
from typing import Any

import torch
from trl.trainer.utils import FusedCausalLMOutput

IGNORED = -100  # a label that counts for nothing


def take_labelled_positions(model: Any) -> None:
    """Have `model(..., labels=labels, fused_lm_head=True)`, as TRL's trainers call it, use the model's own logits.

    `model` is a causal language model that TRL has given its fused head. On a GPU it keeps TRL's, and so does a mixture
    of experts, whose routers have a loss of their own.
    """
    text: Any = model.config.get_text_config()
    if next(model.parameters()).device.type != "cpu" or getattr(text, "output_router_logits", False):
        return
    with_fused_head = model.forward

    @wraps(with_fused_head)  # generation looks at the names of the arguments; of a method, it would miss the first one
    def forward(*args: Any, fused_lm_head: bool = False, labels: Any = None, **given: Any) -> Any:
        if not fused_lm_head:
            return with_fused_head(*args, **given, **({} if labels is None else {"labels": labels}))
        logits = with_fused_head(*args, **{**given, "use_cache": False}).logits
        return labelled_output(logits, labels)

    model.forward = forward


def labelled_output(logits: torch.Tensor, labels: torch.Tensor) -> FusedCausalLMOutput:
    """Return what TRL's fused head returns: float32, each of shape (rows, positions - 1), 0 where there is no label.

    `logits` has shape (rows, positions, vocabulary); a position's logits are of the next token.
    """
    targets = labels[:, 1:]
    mask = targets != IGNORED
    chosen = logits[:, :-1][mask].float()  # (labels, vocabulary)
    each = chosen.log_softmax(-1)
    with torch.no_grad():
        entropy, mean = -(each.exp() * each).sum(-1), chosen.mean(-1)
        best = chosen.argmax(-1) == targets[mask]

    def placed(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    log_probs = placed(each.gather(1, targets[mask][:, None])[:, 0])
    return FusedCausalLMOutput(
        loss=-log_probs.sum() / mask.sum().clamp(min=1),  # pyright: ignore[reportArgumentType]
        log_probs=log_probs,  # pyright: ignore[reportArgumentType]
        entropy=placed(entropy),  # pyright: ignore[reportArgumentType]
        mean_logits=placed(mean),  # pyright: ignore[reportArgumentType]
        is_top1=placed(best),  # pyright: ignore[reportArgumentType]
        label_mask=mask,  # pyright: ignore[reportArgumentType]
    )
