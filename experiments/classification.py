"""A sequence classifier over tokenised rows: training with transformers.Trainer, and logits."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase, Trainer, TrainingArguments

from lorta.models.backbone import Backbone
from lorta.training.context import TrainingContext
from lorta.training.trainer import OwnDataOrder, TrainingOutcome, train_model

MODEL_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")


def start_at(backbone: Backbone, value: float) -> str | None:
    """Set the bias of the head's last linear layer, so that the first answers lie around `value`.

    A head that begins at 0 where labels average 2.7 has one direction to learn first, in which the features of all rows
    are pushed alike: without clipping they collapsed (docs/protocols/glue.md). A head without a bias, as decoders have,
    stays as it was drawn, since a bias of ours would not load into the model's own class; a sentence says so.
    """
    head = [backbone.model.get_submodule(name) for name in backbone.geometry.architecture.head]
    (*_, last) = (module for part in head for module in part.modules() if isinstance(module, nn.Linear))
    if last.bias is None:
        return f"the head has no bias: it starts at 0, not at {value:.3g}, the mean of the training labels"
    nn.init.constant_(last.bias, value)
    return None


def train_classifier(
    model: nn.Module,
    context: TrainingContext,
    rows: Any,
    score: Callable[[], float],
) -> TrainingOutcome:
    """Train on rows of input_ids, attention_mask and labels, padded to the longest of a batch."""

    def make_trainer(arguments: dict[str, Any], parts: dict[str, Any]) -> Trainer:
        return OwnDataOrder(args=TrainingArguments(**arguments), train_dataset=rows, **parts)

    collate = DataCollatorWithPadding(context.backbone.tokenizer)
    return train_model(model, context, make_trainer, collate, score)


@torch.no_grad()
def logits(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Any, batch_size: int, precision: str
) -> list[list[float]]:
    """Return one list of (labels) logits per row, in the rows' order; batches are made of rows of like length."""
    model.eval()
    device = next(model.parameters()).device
    collate = DataCollatorWithPadding(tokenizer)
    columns = {name: rows[name][:] for name in MODEL_COLUMNS if name in rows.column_names}  # lists: a Column is slow
    order = sorted(range(len(rows)), key=lambda index: len(columns["input_ids"][index]))
    outputs_of: list[list[float]] = [[] for _ in order]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch: Any = collate([{name: column[index] for name, column in columns.items()} for index in chosen])
        batch = batch.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(**batch).logits.float().cpu().tolist()
        for index, row in zip(chosen, outputs, strict=True):
            outputs_of[index] = row
    return outputs_of
