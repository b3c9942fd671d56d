"""Answers written by a causal language model: transformers' `generate` in batches, every value of it given here.

A checkpoint's own generation settings (Llama 2 ships a temperature) are not used: they would move numbers unseen.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Generation:
    """How answers are written; a node of a task's YAML, so part of a run's identity.

    Raises ValueError for sizes below 1, a negative temperature, and any padding side but the left: a decoder continues
    the last position of each row, which must not be padding.
    """

    max_new_tokens: int
    batch_size: int
    stop: Sequence[str] = ()  # an answer ends before the first of these, or at the end-of-text token
    temperature: float = 0.0  # 0: greedy
    padding_side: Literal["left"] = "left"
    pad_token_id: int | None = None  # None: the tokenizer's; attention masks it out

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.batch_size < 1:
            raise ValueError("generation.max_new_tokens and generation.batch_size must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"generation.temperature must be 0 (greedy) or more, got {self.temperature}")
        if self.padding_side != "left":
            raise ValueError(f"generation.padding_side must be left, got {self.padding_side}")


@dataclass(frozen=True)
class Written:
    """One answer: its text without stop string and special tokens, and its length in tokens."""

    text: str
    tokens: int
    stopped: bool  # False: cut at max_new_tokens


def write(
    model: "nn.Module",
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    settings: Generation,
    precision: str = "fp32",
    seed: int = 0,
) -> list[Written]:
    """Return the answers to tokenised prompts, in their order; batches are made of prompts of like length.

    Greedy answers do not depend on the batch size, but for ties that rounding decides. Sampled ones do; `seed` fixes
    them. `precision` is fp32 or bf16 (autocast). Raises ValueError for an empty prompt.
    """
    import torch

    from lorta.models.frozen_casts import frozen_casts

    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt to be continued must have at least one token")
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers: dict[int, Written] = {}
    torch.manual_seed(seed)
    with _settings_of_our_own(model, tokenizer, settings), frozen_casts(model, precision), torch.no_grad():
        for start in range(0, len(order), settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            batch = _pad([prompts[index] for index in chosen], _pad_id(tokenizer, settings), device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
                rows: Any = model.generate(**batch, **_stop(tokenizer, settings))  # pyright: ignore[reportCallIssue]
            width = batch["input_ids"].shape[1]
            answers |= {
                i: _read(row, tokenizer, settings) for i, row in zip(chosen, rows[:, width:].tolist(), strict=True)
            }
    return [answers[index] for index in range(len(prompts))]


def _pad_id(tokenizer: Any, settings: Generation) -> int:
    token = settings.pad_token_id if settings.pad_token_id is not None else tokenizer.pad_token_id
    if token is None:
        raise ValueError("generation.pad_token_id=null and the tokenizer has no padding token: give a number")
    return int(token)


@contextmanager
def _settings_of_our_own(model: Any, tokenizer: Any, settings: Generation) -> Iterator[None]:
    """Put our settings in the place of the checkpoint's, from which `generate` fills every value that is None."""
    from transformers import GenerationConfig

    sampling = {"temperature": settings.temperature} if settings.temperature > 0 else {}
    ours = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=settings.temperature > 0,
        num_beams=1,
        pad_token_id=_pad_id(tokenizer, settings),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        use_cache=True,
        **sampling,
    )
    holders = [part for part in model.modules() if "generation_config" in vars(part)]
    kept = [part.generation_config for part in holders]
    for part in holders:
        part.generation_config = ours
    try:
        yield
    finally:
        for part, before in zip(holders, kept, strict=True):
            part.generation_config = before


def _stop(tokenizer: Any, settings: Generation) -> dict[str, Any]:
    return {"stop_strings": list(settings.stop), "tokenizer": tokenizer} if settings.stop else {}


def _pad(prompts: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, Any]:
    import torch

    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _read(tokens: list[int], tokenizer: Any, settings: Generation) -> Written:
    """Return what was written up to the end-of-text token or a stop string; what follows in a row is padding."""
    ended = tokenizer.eos_token_id in tokens
    if ended:
        tokens = tokens[: tokens.index(tokenizer.eos_token_id)]
    while tokens and tokens[-1] == _pad_id(tokenizer, settings):
        tokens = tokens[:-1]
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    ends = [text.index(stop) for stop in settings.stop if stop in text]
    return Written(text[: min(ends)] if ends else text, len(tokens), ended or bool(ends))
