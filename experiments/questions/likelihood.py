"""How likely a causal language model finds each option of a question, given its prompt."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

Tokens = Sequence[int]


@torch.no_grad()
def option_scores(
    model: nn.Module,
    pad_id: int,
    rows: Sequence[Sequence[tuple[Tokens, Tokens]]],
    batch_size: int,
    normalise: Literal["mean", "sum"],
    precision: str,
) -> list[list[float]]:
    """Return one log-probability (nats) per option of each row, in order: a mean over the option's tokens, or the sum.

    Each row is a list of options, each given as (prompt, option). Batches are made of `batch_size` options of like
    length, padded on the right, where a decoder does not look.
    """
    model.eval()
    places = [(row, place) for row, options in enumerate(rows) for place in range(len(options))]
    places.sort(key=lambda at: -sum(map(len, rows[at[0]][at[1]])))
    sums = [[0.0] * len(options) for options in rows]
    for start in range(0, len(places), batch_size):
        chosen = places[start : start + batch_size]
        texts = [rows[row][place] for row, place in chosen]
        for (row, place), (_, option), value in zip(
            chosen, texts, _batch(model, pad_id, texts, precision), strict=True
        ):
            sums[row][place] = value / len(option) if normalise == "mean" else value
    return sums


def _batch(model: nn.Module, pad_id: int, texts: Sequence[tuple[Tokens, Tokens]], precision: str) -> list[float]:
    device = next(model.parameters()).device
    rows = [[*prompt, *option] for prompt, option in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits
    logits = logits[:, -width:]  # prompt tuning puts positions of its own in front
    values: list[float] = []
    for row, (prompt, option) in enumerate(texts):
        before = logits[row, len(prompt) - 1 : len(prompt) + len(option) - 1].float()
        target = torch.tensor(list(option), device=device)
        values.append(before.log_softmax(-1).gather(-1, target[:, None]).sum().item())
    return values
