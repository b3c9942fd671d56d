"""Supervised fine-tuning of a decoder with trl.SFTTrainer, and the log-probabilities of answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from experiments.labelled_positions import IGNORED, take_labelled_positions
from experiments.prompts import Encoded
from lorta.models.backbone import padding_id
from lorta.training.context import TrainingContext
from lorta.training.trainer import OwnDataOrder, TrainingOutcome, train_model


class SupervisedTrainer(OwnDataOrder, SFTTrainer):
    """trl.SFTTrainer with this project's data order. The loss of a step is the mean over its tokens, not its rows."""

    loss_is_scaled_for_ga = True

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.model_accepts_loss_kwargs = True  # whatever the model: only so are tokens counted, and TRL itself divides
        take_labelled_positions(unwrapped(self.model))


@dataclass(frozen=True)
class AnswerScore:
    """How a model takes one answer, its end mark included."""

    log_probability: float  # nats, the sum over its tokens
    tokens: int
    correct: int  # tokens that were the most likely ones


def labelled(encoded: Encoded, max_length: int, on_prompt: bool = False) -> dict[str, list[int]]:
    """Return input_ids and labels of one row, cut at `max_length` tokens; the prompt is learnt only where asked."""
    ids = [*encoded.prompt, *encoded.answer]
    labels = ids if on_prompt else [IGNORED] * len(encoded.prompt) + encoded.answer
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def unwrapped(model: Any) -> Any:
    """Return the language model inside a PEFT model, or the model itself."""
    return getattr(model, "get_base_model", lambda: model)()


def quiet(model: nn.Module) -> dict[str, Any]:
    """Return TRL's arguments that no task sets: checkpointing as the model has it, nothing printed or prepared."""
    checkpointing = bool(getattr(model, "is_gradient_checkpointing", False))
    return {
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "dataset_num_proc": None,
    }


def keep_precision(model: nn.Module, make: Callable[[], Trainer]) -> Trainer:
    """Return the trainer with the trained weights as they were.

    TRL rounds what is trained on a quantised base to bfloat16, in steps of 0.4% of a weight: small updates are lost.
    """
    held = [(weight, weight.data) for weight in model.parameters() if weight.requires_grad]
    trainer = make()
    for weight, data in held:
        weight.data = data
    return trainer


def train_supervised(
    model: nn.Module,
    context: TrainingContext,
    score: Callable[[], float],
) -> TrainingOutcome:
    """Train on rows of input_ids and labels; the loss is the mean over the labels of an optimiser step that count."""

    def make_trainer(arguments: dict[str, Any], parts: dict[str, Any]) -> Trainer:
        prepared = {"dataset_kwargs": {"skip_prepare_dataset": True}, "packing": False, "max_length": None}
        config = SFTConfig(**arguments, **quiet(model), **prepared)
        rows, tokenizer = context.data.train, context.backbone.tokenizer
        return keep_precision(
            model, lambda: SupervisedTrainer(args=config, train_dataset=rows, processing_class=tokenizer, **parts)
        )

    collate = DataCollatorForLanguageModeling(padding_id(context.backbone))
    return train_model(model, context, make_trainer, collate, score)


@torch.no_grad()
def answer_scores(
    model: nn.Module, padding: int, rows: Any, batch_size: int, precision: str = "fp32"
) -> list[AnswerScore]:
    """Return one score per row of input_ids and labels, in the rows' order; batches are made of rows of like length."""
    model.eval()
    device = next(model.parameters()).device
    collate = DataCollatorForLanguageModeling(padding)
    columns = {name: rows[name][:] for name in ("input_ids", "labels")}
    order = sorted(range(len(rows)), key=lambda index: len(columns["input_ids"][index]))
    scores_of: dict[int, AnswerScore] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collate([{name: column[index] for name, column in columns.items()} for index in chosen])
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            scores = _batch_scores(model, {name: tensor.to(device) for name, tensor in batch.items()})
        scores_of |= dict(zip(chosen, scores, strict=True))
    return [scores_of[index] for index in range(len(order))]


def _batch_scores(model: nn.Module, batch: dict[str, torch.Tensor]) -> list[AnswerScore]:
    ids, labels = batch["input_ids"], batch["labels"][:, 1:]
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits
    logits = logits[:, -ids.shape[1] : -1]  # virtual tokens of prompt methods come first
    counted = labels != IGNORED
    chosen, targets = logits[counted].float(), labels[counted]  # (counted tokens, vocabulary): the rest stays as it is
    each = chosen.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    sums, right = torch.zeros(labels.shape, device=each.device), torch.zeros(labels.shape, device=each.device)
    sums[counted], right[counted] = each, (chosen.argmax(-1) == targets).float()
    totals = zip(sums.double().sum(1).tolist(), counted.sum(1).tolist(), right.sum(1).tolist(), strict=True)
    return [AnswerScore(total, tokens, int(correct)) for total, tokens, correct in totals]
