"""Preference pairs: the answer that was preferred, made more likely against the backbone. DPO, Rafailov et al. 2023.

Scores are on held-out pairs. The protocol is docs/protocols/dpo.md. Importing this module loads no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.prompts import Request, Template, common_prefix, encode
from experiments.rows import Row, cap, identities
from experiments.texts import TextSource, plan_texts, read_texts, text_problem
from lorta.api.task import DataPlan, DataSplits, Task
from lorta.config.settings import DataSettings, TrainerSettings
from lorta.models.backbone import Backbone, load_causal_lm, padding_id
from lorta.models.locate import ModelFiles
from lorta.models.tokenizer import tokenizer_sha256
from lorta.records.sections import Score

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from experiments.preference import Untouched
    from lorta.training.trainer import TrainingOutcome

VERSION = 1  # of the tokenised columns
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
    def compares_with_backbone(self) -> bool:
        """The reference: an adapter must begin as it, or be switched off."""
        return True

    @property
    def predicts_with_base(self) -> bool:
        """The reference model's log-probabilities are computed once."""
        return True

    def problem(self, row: Any) -> str | None:
        """Return what is wrong with a row, or None."""
        asked = next((name for name in QUESTIONS if isinstance(row, dict) and name in row), QUESTIONS[0])
        found = text_problem(row, (asked, *ANSWERS), optional=("system",))
        same = found is None and row["chosen"] == row["rejected"]
        return "chosen and rejected are the same text" if same else found

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

        Pairs whose prompt alone fills data.max_length are left out; the record says how many pairs there are.
        """
        from experiments.tokenised import cached

        def split(use: str, name: str, most: int | None) -> Any:
            parts = [VERSION, "dpo", plan.fingerprints[use], self.template, self.answer_end, most, data.max_length]
            parts += [tokenizer_sha256(tokenizer), tokenizer.chat_template, self.source.get("keep")]

            def make() -> dict[str, list[Any]]:
                rows = read_texts(plan, TextSource(**self.source), data, name, self)
                return self._encoded(cap(rows, most, self.name), tokenizer, data.max_length)

            return cached(parts, make, cache)

        return DataSplits(
            train=split("train", "train", data.max_train_samples),
            evaluation=split("evaluation", "validation", data.max_eval_samples),
        )

    def _encoded(self, rows: Sequence[Row], tokenizer: Any, max_length: int) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": [], "idx": []}
        for idx, row in zip(identities(rows), rows, strict=True):
            question = next(row[name] for name in QUESTIONS if name in row)
            request = Request(question, system=row.get("system") or "")
            pair = [encode(self.template, request, row[answer], self.answer_end, tokenizer) for answer in ANSWERS]
            shared = common_prefix(*(item.prompt for item in pair))
            if shared >= max_length:
                continue
            columns["prompt_ids"].append(pair[0].prompt[:shared])
            for answer, item in zip(ANSWERS, pair, strict=True):
                columns[f"{answer}_ids"].append([*item.prompt, *item.answer][shared:max_length])
            columns["idx"].append(idx)
        if not columns["idx"]:
            raise ValueError(f"data.max_length={max_length}: no prompt of {len(rows)} is shorter; raise it")
        return columns

    def predict_untouched(self, backbone: Backbone, data: DataSplits, settings: TrainerSettings) -> "Untouched":
        """Return how the backbone takes both answers of every held-out pair: the reference of all scores."""
        from experiments.preference import untouched_scores

        size, precision = settings.per_device_eval_batch_size, settings.precision
        return untouched_scores(backbone.model, padding_id(backbone), data.evaluation, size, precision)

    def _scores(self, model: "nn.Module", backbone: Backbone, data: DataSplits, settings: TrainerSettings) -> Any:
        from experiments.preference import pair_scores

        size, precision = settings.per_device_eval_batch_size, settings.precision
        return pair_scores(model, padding_id(backbone), data.evaluation, size, precision)

    def train(
        self,
        model: "nn.Module",
        backbone: Backbone,
        data: DataSplits,
        settings: TrainerSettings,
        seed: int,
        callbacks: "Sequence[TrainerCallback]",
        folder: Path,
    ) -> "TrainingOutcome":
        """Train with trl.DPOTrainer; the best epoch is that with the best primary metric on the held-out pairs."""
        from experiments.preference import reference_for, train_preference

        def epoch_score() -> float:
            value = self.score(self.predict(model, backbone, data, settings, folder))[self.primary].value
            return float("-inf") if value is None else value

        rows, known = data.evaluation, backbone.untouched
        reference = reference_for(model, padding_id(backbone), rows, known, settings.precision)
        return train_preference(
            model, reference, backbone, data.train, settings, seed, callbacks, epoch_score, folder, self.beta
        )

    def predict(
        self, model: "nn.Module", backbone: Backbone, data: DataSplits, settings: TrainerSettings, folder: Path
    ) -> list[dict[str, Any]]:
        """Return the log-probabilities of both answers of every held-out pair, by the model and by the backbone."""
        found = self._scores(model, backbone, data, settings)
        return [
            {
                "idx": idx,
                **{f"{answer}_tokens": getattr(pair, answer).tokens for answer in ANSWERS},
                **{f"{answer}_log_probability": getattr(pair, answer).log_probability for answer in ANSWERS},
                **{f"base_{answer}_log_probability": getattr(base, answer).log_probability for answer in ANSWERS},
                "beta": self.beta,
            }
            for idx, pair, base in zip(data.evaluation["idx"], found, backbone.untouched.pairs, strict=True)
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
            **{f"reward_{answer}": found for answer, found in rewards.items()},
            **{
                f"log_probability_{answer}": [row[f"{answer}_log_probability"] for row in predictions]
                for answer in ANSWERS
            },
        }
        return {name: _mean(found, n) for name, found in values.items()}


def _reward(row: Mapping[str, Any], answer: str) -> float:
    return row["beta"] * (row[f"{answer}_log_probability"] - row[f"base_{answer}_log_probability"])


def _loss(margin: float) -> float:
    """-log sigmoid(margin), Rafailov et al. 2023, equation 7; without overflow for large margins of either sign."""
    return math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)


def _mean(values: Sequence[float], n: int) -> Score:
    mean = math.fsum(values) / n if n and all(map(math.isfinite, values)) else math.nan
    return Score(value=mean, n=n) if math.isfinite(mean) else Score(value=None, n=n, reason="no finite value")
