"""Preference pairs: the answer that was preferred, made more likely against the backbone. DPO, Rafailov et al. 2023.

Scores are on held-out pairs. The protocol is docs/protocols/dpo.md. Importing this module loads no torch.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.prompts import Encoded, Request, Template, common_prefix, encode
from experiments.rows import Row, capped, identities
from experiments.texts import LEAVE_OUT, PROMPT_TOO_LONG, TextSource, both_left, plan_texts, read_texts, text_problem
from lorta.api.task import DataPlan, Task
from lorta.config.settings import DataSettings
from lorta.models.backbone import Backbone, load_causal_lm, padding_id
from lorta.models.locate import ModelFiles
from lorta.records.row_counts import ANSWER_CUT, RowCount
from lorta.records.sections import Score
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from experiments.preference import BaseScores
    from experiments.tokenised import Tokenised
    from lorta.training.trainer import TrainingOutcome

EQUAL_ANSWERS = "both answers are the same tokens within data.max_length"
QUESTIONS = ("prompt", "question", "input")  # ours, Intel/orca_dpo_pairs, argilla/distilabel-intel-orca-dpo-pairs
ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True)
class DpoTask(Task):
    """Pairs of answers to a prompt. Raises ValueError for a beta that is not above 0."""

    name: str
    protocol: int
    template: Template
    answer_end: str  # text behind both answers, before the end-of-text token
    beta: float
    start: str  # "backbone" or "released": where adapters that can choose begin; read by conf/adapter (`starts`)
    primary: str
    source: Mapping[str, Any]  # fields of experiments.texts.TextSource
    max_length: int  # tokens of prompt and answer, unless data.max_length says otherwise
    test_is_validation: bool
    peft_task_type: str = "CAUSAL_LM"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"task.beta must be above 0, got {self.beta}")

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Those of training and scoring; what they import themselves comes with them."""
        return ("experiments.preference", "experiments.tokenised")

    @property
    def compares_with_backbone(self) -> bool:
        """The reference: an adapter must begin as it, or be switched off."""
        return True

    @property
    def supports_holdout(self) -> bool:
        """Whether training pairs can be scored as they are: they have the columns of the held-out ones."""
        return True

    @property
    def predicts_with_base(self) -> bool:
        """The reference model's log-probabilities are computed once."""
        return True

    def problem(self, row: Any) -> str | None:
        """Return what is wrong with a row, or None."""
        asked = next((name for name in QUESTIONS if isinstance(row, dict) and name in row), QUESTIONS[0])
        wrong = text_problem(row, (asked, *ANSWERS), optional=("system",))
        same = wrong is None and row["chosen"] == row["rejected"]
        return f"chosen and rejected are the same text {LEAVE_OUT}" if same else wrong

    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source and check every line of local files. Raises ValueError, one problem a line."""
        return plan_texts(self.name, TextSource(**self.source), self, data, model_default)

    def load_backbone(self, files: ModelFiles, dtype: str) -> Backbone:
        """Return the causal language model."""
        return load_causal_lm(files, dtype)

    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Return both splits as prompt_ids, chosen_ids, rejected_ids and idx, from the cache where they are there.

        Pairs whose prompt alone fills data.max_length are left out and counted, and pairs whose answers are equal as
        far as they fit: no model can prefer one of two equal answers.
        """
        from experiments.tokenised import cached, refuse_unknown

        def split(use: str, name: str, most: int | None) -> "Tokenised":
            def make() -> tuple[dict[str, list[Any]], RowCount]:
                rows, count = capped(
                    *read_texts(plan, TextSource(**self.source), data, name, self), most, use, self.name
                )
                pairs = [self._pair(row, tokenizer) for row in rows]
                prompts = {"prompt_ids": [pair[0].prompt for pair in pairs]}
                what = f"task={self.name}, {use} rows"
                refuse_unknown(what, prompts, tokenizer, {use: count})  # before they are called equal
                columns, dropped, cut = _cut(pairs, identities(rows), data.max_length)
                for reason, number in dropped.items():
                    count = count.without(reason, number)
                count = count.noting(ANSWER_CUT, cut)
                return columns, count

            return cached(self, plan, data, use, tokenizer, make, cache)

        train = split("train", "train", data.max_train_samples)
        evaluation = split("evaluation", "validation", data.max_eval_samples)
        return both_left(train, evaluation, data.max_length)

    def _pair(self, row: Row, tokenizer: Any) -> list[Encoded]:
        """Return the prompt with the chosen answer, and with the rejected one."""
        question = next(row[name] for name in QUESTIONS if name in row)
        request = Request(question, system=row.get("system") or "")
        return [encode(self.template, request, row[answer], self.answer_end, tokenizer) for answer in ANSWERS]

    def predict_base(self, context: TrainingContext) -> "BaseScores":
        """Return how the backbone takes both answers of every held-out pair: the reference of all scores."""
        from experiments.preference import base_scores

        size, precision = context.settings.per_device_eval_batch_size, context.settings.precision
        backbone = context.backbone
        return base_scores(backbone.model, padding_id(backbone), context.data.evaluation, size, precision)

    def _scores(self, model: "nn.Module", context: TrainingContext) -> Any:
        from experiments.preference import pair_scores

        size, precision = context.settings.per_device_eval_batch_size, context.settings.precision
        return pair_scores(model, padding_id(context.backbone), context.data.evaluation, size, precision)

    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train with trl.DPOTrainer; the best epoch is that with the best primary metric on the held-out pairs."""
        from experiments.preference import reference_for, train_preference

        padding, precision = padding_id(context.backbone), context.settings.precision
        reference = reference_for(model, padding, context.data.evaluation, context.base_predictions, precision)
        return train_preference(model, reference, context, lambda: self.epoch_score(model, context), self.beta)

    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return the log-probabilities of both answers of every held-out pair, by the model and by the backbone."""
        pairs = self._scores(model, context)
        base_pairs = context.base_predictions.pairs
        return [
            {
                "idx": idx,
                **{f"{answer}_tokens": getattr(pair, answer).tokens for answer in ANSWERS},
                **{f"{answer}_log_probability": getattr(pair, answer).log_probability for answer in ANSWERS},
                **{f"base_{answer}_log_probability": getattr(base, answer).log_probability for answer in ANSWERS},
                "beta": self.beta,
            }
            for idx, pair, base in zip(context.data.evaluation["idx"][:], pairs, base_pairs, strict=True)
        ]

    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return the loss, mean rewards (in units of beta nats), their margin, and how often it is above 0. Pure."""
        n = len(predictions)
        rewards = {answer: [_reward(row, answer) for row in predictions] for answer in ANSWERS}
        margins = [chosen - rejected for chosen, rejected in zip(*rewards.values(), strict=True)]
        values = {
            "reward_accuracy": [float(margin > 0) for margin in margins],
            "reward_margin": margins,
            "loss": [_loss(margin) for margin in margins],
            **{f"reward_{answer}": numbers for answer, numbers in rewards.items()},
            **{
                f"log_probability_{answer}": [row[f"{answer}_log_probability"] for row in predictions]
                for answer in ANSWERS
            },
        }
        return {name: _mean(numbers, n) for name, numbers in values.items()}


def _cut(
    pairs: Sequence[Sequence[Encoded]], names: Sequence[Any], max_length: int
) -> tuple[dict[str, list[Any]], Counter[str], int]:
    """Return the columns of the pairs that can be used, how many cannot for which reason, and how many are cut."""
    columns: dict[str, list[Any]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": [], "idx": []}
    dropped: Counter[str] = Counter()
    cut = 0
    for idx, pair in zip(names, pairs, strict=True):
        shared = common_prefix(*(item.prompt for item in pair))
        chosen, rejected = ([*item.prompt, *item.answer][shared:max_length] for item in pair)
        if shared >= max_length or chosen == rejected:
            dropped[PROMPT_TOO_LONG if shared >= max_length else EQUAL_ANSWERS] += 1
            continue
        cut += any(len(item.prompt) + len(item.answer) > max_length for item in pair)
        values_of = {
            "prompt_ids": pair[0].prompt[:shared],
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "idx": idx,
        }
        for name, values in columns.items():
            values.append(values_of[name])
    return columns, dropped, cut


def _reward(row: Mapping[str, Any], answer: str) -> float:
    return row["beta"] * (row[f"{answer}_log_probability"] - row[f"base_{answer}_log_probability"])


def _loss(margin: float) -> float:
    """-log sigmoid(margin), Rafailov et al. 2023, equation 7; without overflow for large margins of either sign."""
    return math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)


def _mean(values: Sequence[float], n: int) -> Score:
    mean = math.fsum(values) / n if n and all(map(math.isfinite, values)) else math.nan
    return Score(value=mean, n=n) if math.isfinite(mean) else Score(value=None, n=n, reason="no finite value")
