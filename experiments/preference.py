"""Direct preference optimisation with trl.DPOTrainer. Rafailov et al. 2023, arXiv:2305.18290.

The reference is always the backbone: with the adapter switched off where that gives the backbone back, else a copy.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from experiments.dropout import without_dropout
from experiments.labelled_positions import IGNORED, take_labelled_positions
from experiments.supervised import AnswerScore, answer_scores, keep_precision, quiet, unwrapped
from lorta.models.backbone import padding_id
from lorta.training.context import TrainingContext
from lorta.training.trainer import OwnDataOrder, TrainingOutcome, train_model

PROBE_ROWS = 4  # held-out rows on which a reference is compared with the backbone
EXACT_START, ROUNDED_START = 1e-3, 0.05  # of the first loss, in nats, in float32 and in bfloat16 or on a quantised base
TOLERANCE = 0.1  # of a log-probability, in nats and relative: LLM.int8() rounds by what else is in a batch


@dataclass(frozen=True)
class PairScore:
    """How a model takes the two answers of a pair: sums over their tokens, in nats."""

    chosen: AnswerScore
    rejected: AnswerScore


@dataclass(frozen=True)
class BaseScores:
    """How the backbone takes the held-out pairs before an adapter is attached."""

    pairs: list[PairScore]
    probe: list[PairScore]  # the first PROBE_ROWS of them again, as a batch: 8-bit products depend on the batch


@dataclass(frozen=True)
class Reference:
    """What DPO compares with: a model of its own, or None for the trained one with its adapter switched off."""

    model: nn.Module | None
    is_start: bool  # whether training begins as the reference: the first loss is ln 2 then


class _NoReference(nn.Module):
    """Stands where TRL wants a reference model while it is set up."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


class PreferenceTrainer(OwnDataOrder, DPOTrainer):
    """trl.DPOTrainer on rows that are tokenised already, with this project's data order.

    Given a PeftModel and no reference, TRL copies the adapter into a second one, "ref", as if it had been trained
    before, which not every tuner can hold. With `ref_model` None after set-up it switches the adapter off instead.
    """

    def __init__(self, model: Any, reference: Reference, **rest: Any) -> None:
        stand_in = reference.model if reference.model is not None else _NoReference(model.config)
        super().__init__(model, ref_model=stand_in, **rest)  # pyright: ignore[reportArgumentType]
        self.ref_model = reference.model
        for answering in (self.model, reference.model):
            if answering is not None:
                take_labelled_positions(unwrapped(answering))
        self._start_is_checked = not reference.is_start

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss. Raises ValueError where training does not begin as the reference, although it should."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self._start_is_checked and self.state.global_step == 0:
            self._check_start(float((result[0] if return_outputs else result).detach()), model)
        self._start_is_checked = True
        return result

    def _check_start(self, loss: float, model: nn.Module) -> None:
        exact = not self.args.bf16 and all(weight.dtype == torch.float32 for weight in model.parameters())
        if abs(loss - math.log(2)) > (EXACT_START if exact else ROUNDED_START):
            raise ValueError(
                f"task=dpo: the first loss is {loss:.4f} and must be ln 2 = {math.log(2):.4f}, because the adapter "
                "begins as the reference: in training the model draws at random (a dropout that could not be switched "
                "off), or it does not compute what it does in evaluation"
            )

    def _prepare_dataset(self, dataset: Any, *unused: Any) -> Any:
        return dataset


def pair_rows(rows: Any, answer: str) -> dict[str, list[list[int]]]:
    """Return input_ids and labels of prompt and answer ("chosen" or "rejected"), for `answer_scores`."""
    pairs = list(zip(rows["prompt_ids"][:], rows[f"{answer}_ids"][:], strict=True))
    return {
        "input_ids": [[*prompt, *ids] for prompt, ids in pairs],
        "labels": [[IGNORED] * len(prompt) + list(ids) for prompt, ids in pairs],
    }


def pair_scores(model: nn.Module, padding: int, rows: Any, batch_size: int, precision: str = "fp32") -> list[PairScore]:
    """Return one score per row of prompt_ids, chosen_ids and rejected_ids, in the rows' order."""
    chosen, rejected = (
        answer_scores(model, padding, _Columns(pair_rows(rows, answer)), batch_size, precision)
        for answer in ("chosen", "rejected")
    )
    return [PairScore(*pair) for pair in zip(chosen, rejected, strict=True)]


class _Columns(dict[str, list[list[int]]]):
    """Columns whose length is their number of rows, as a datasets.Dataset has it."""

    def __len__(self) -> int:
        return len(self["input_ids"])


def base_scores(model: nn.Module, padding: int, rows: Any, batch_size: int, precision: str) -> BaseScores:
    """Return what the backbone says of the held-out rows."""
    pairs = pair_scores(model, padding, rows, batch_size, precision)
    return BaseScores(pairs, pair_scores(model, padding, _probe(rows), PROBE_ROWS, precision))


def _probe(rows: Any) -> Any:
    return rows.select(range(min(PROBE_ROWS, len(rows))))


def reference_for(model: nn.Module, padding: int, rows: Any, base: BaseScores, precision: str) -> Reference:
    """Return the model itself where switching the adapter off gives the backbone, else a frozen copy as it begins.

    Both are compared with what the backbone said of the first rows (PiSSA, for example, leaves a residual behind, and
    full fine-tuning has nothing to switch off). Raises ValueError when neither is the backbone.
    """

    def sums() -> torch.Tensor:
        return _sums(pair_scores(model, padding, _probe(rows), PROBE_ROWS, precision))

    def is_backbone(sums_now: torch.Tensor) -> bool:
        return torch.allclose(sums_now, _sums(base.probe), rtol=TOLERANCE, atol=TOLERANCE)

    disable: Any = getattr(model, "disable_adapter", None)
    with disable() if disable else nullcontext():
        off = sums()
    start = sums() if disable else off
    if disable and is_backbone(off):
        return Reference(None, torch.allclose(start, off, rtol=1e-5, atol=1e-4))
    if not is_backbone(start):
        raise ValueError(
            "task=dpo: this adapter cannot be switched off and does not begin as the backbone: no reference"
        )
    inner = unwrapped(model)  # the adapter's layers are in it
    return Reference(copy.deepcopy(inner).requires_grad_(False).eval(), is_start=True)


def _sums(pairs: Sequence[PairScore]) -> torch.Tensor:
    return torch.tensor([[pair.chosen.log_probability, pair.rejected.log_probability] for pair in pairs])


def train_preference(
    model: nn.Module,
    reference: Reference,
    context: TrainingContext,
    score: Callable[[], float],
    beta: float,
) -> TrainingOutcome:
    """Train on rows of prompt_ids, chosen_ids and rejected_ids with the sigmoid loss; dropout is off, in every form."""

    def make_trainer(arguments: dict[str, Any], parts: dict[str, Any]) -> Trainer:
        config = DPOConfig(**arguments, **quiet(model), beta=beta, loss_type=["sigmoid"], max_length=None)
        rest = {**parts, "args": config, "train_dataset": context.data.train}
        rest |= {"processing_class": context.backbone.tokenizer}
        rest.pop("model")
        return keep_precision(model, lambda: PreferenceTrainer(model, reference, **rest))

    collate = DataCollatorForPreference(padding_id(context.backbone), max_length=None)
    with without_dropout(model, *([] if reference.model is None else [reference.model])):
        return train_model(model, context, make_trainer, collate, score)
