"""Instruction tuning: answers to instructions, learnt by supervised fine-tuning. Alpaca: Taori et al. 2023.

Scores are on held-out rows: loss per answer token, perplexity, token accuracy, and the same for the backbone before an
adapter is attached. The protocol is docs/protocols/instruct.md. Importing this module loads no torch.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.prompts import Request, Template, encode
from experiments.rows import Row, capped, identities
from experiments.texts import PROMPT_TOO_LONG, TextSource, both_left, plan_texts, read_texts, text_problem
from lorta.api.task import DataPlan, Task
from lorta.config.settings import DataSettings
from lorta.models.backbone import Backbone, load_causal_lm, padding_id
from lorta.models.locate import ModelFiles
from lorta.records.row_counts import ANSWER_CUT, ANSWER_EMPTY, RowCount
from lorta.records.sections import Score
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from experiments.supervised import AnswerScore
    from experiments.tokenised import Tokenised
    from lorta.training.trainer import TrainingOutcome

GENERATIONS = "generations.jsonl"


@dataclass(frozen=True)
class InstructTask(Task):
    """Instructions with answers. Raises ValueError for a template or a target of the loss that does not exist."""

    name: str
    protocol: int
    template: Template
    loss_on: Literal["answer", "all"]  # which tokens are learnt; scores are always of the answer
    primary: str
    source: Mapping[str, Any]  # fields of experiments.texts.TextSource
    max_length: int  # tokens, unless data.max_length says otherwise
    generations: int  # how many held-out instructions are answered, into generations.jsonl
    max_new_tokens: int
    test_is_validation: bool
    peft_task_type: str = "CAUSAL_LM"
    higher_is_better: bool = False

    def __post_init__(self) -> None:
        for key, known in (("template", ("alpaca", "chat", "plain", "llama2")), ("loss_on", ("answer", "all"))):
            if getattr(self, key) not in known:
                raise ValueError(f"task.{key} must be one of {', '.join(known)}, got '{getattr(self, key)}'")
        for key, least in (("generations", 0), ("max_new_tokens", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"task.{key}={getattr(self, key)}: a whole number, {least} or more, is needed")

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Those of training and scoring; what they import themselves comes with them."""
        return ("experiments.supervised", "experiments.tokenised", "experiments.answers", "experiments.generation")

    @property
    def supports_holdout(self) -> bool:
        """Whether training rows can be scored as they are: not where prompts are learnt too, which no score counts."""
        return self.loss_on == "answer"

    @property
    def predicts_with_base(self) -> bool:
        """The backbone's own losses stand beside the adapted model's."""
        return True

    def problem(self, row: Any) -> str | None:
        """Return what is wrong with a row, or None. An empty output stays: its answer is the end mark alone."""
        return text_problem(row, ("instruction", "output"), optional=("input",), empty=("output",))

    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source and check every line of local files. Raises ValueError, one problem a line."""
        return plan_texts(self.name, TextSource(**self.source), self, data, model_default)

    def load_backbone(self, files: ModelFiles, dtype: str) -> Backbone:
        """Return the causal language model."""
        return load_causal_lm(files, dtype)

    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Return both splits as input_ids, labels and idx, from the cache where they are there.

        Rows whose prompt alone fills data.max_length are left out and counted.
        """
        from experiments.tokenised import cached

        def split(use: str, name: str, most: int | None) -> "Tokenised":
            on_prompt = self.loss_on == "all" and use == "train"

            def make() -> tuple[dict[str, list[Any]], RowCount]:
                rows, count = capped(
                    *read_texts(plan, TextSource(**self.source), data, name, self), most, use, self.name
                )
                columns, notes = self._encoded(rows, tokenizer, data.max_length, on_prompt)
                count = count.without(PROMPT_TOO_LONG, len(rows) - len(columns["idx"]))
                for reason, number in notes.items():
                    count = count.noting(reason, number)
                return columns, count

            return cached(self, plan, data, use, tokenizer, make, cache)

        train = split("train", "train", data.max_train_samples)
        evaluation = split("evaluation", "validation", data.max_eval_samples)
        return both_left(train, evaluation, data.max_length)

    def _encoded(
        self, rows: Sequence[Row], tokenizer: Any, max_length: int, on_prompt: bool
    ) -> tuple[dict[str, list[Any]], Counter[str]]:
        """Return the columns of the rows with room for an answer, and what is to be said of how many of them."""
        from experiments.supervised import labelled

        columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "idx": []}
        notes: Counter[str] = Counter()
        for idx, row in zip(identities(rows), rows, strict=True):
            request = Request(row["instruction"], row.get("input") or "")
            encoded = encode(self.template, request, row["output"], "", tokenizer)
            if len(encoded.prompt) < max_length:
                notes[ANSWER_CUT] += len(encoded.prompt) + len(encoded.answer) > max_length
                notes[ANSWER_EMPTY] += not row["output"].strip()
                encoded_row = labelled(encoded, max_length, on_prompt) | {"idx": idx}
                for name, values in columns.items():
                    values.append(encoded_row[name])
        return columns, notes

    def predict_base(self, context: TrainingContext) -> "list[AnswerScore]":
        """Return how the backbone takes the held-out answers."""
        return self._scores(context.backbone.model, context)

    def _scores(self, model: "nn.Module", context: TrainingContext) -> Any:
        from experiments.supervised import answer_scores

        size, precision = context.settings.per_device_eval_batch_size, context.settings.precision
        return answer_scores(model, padding_id(context.backbone), context.data.evaluation, size, precision)

    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train with trl.SFTTrainer; the best epoch is that with the lowest loss on the held-out rows."""
        from experiments.supervised import train_supervised

        return train_supervised(model, context, lambda: self.epoch_score(model, context))

    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return the log-probability of every held-out answer; write the first answers to generations.jsonl."""
        from experiments.answers import write_answers

        held_out = context.data.evaluation
        rows = held_out.select(range(min(self.generations, len(held_out))))
        file = context.folder / GENERATIONS
        write_answers(model, context.backbone, rows, context.settings, self.max_new_tokens, file)
        return self.epoch_rows(model, context)

    def epoch_rows(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return the log-probability of every held-out answer, by the model and by the backbone."""
        scores = self._scores(model, context)
        base_scores = context.base_predictions or [None] * len(scores)
        return [
            {"idx": idx, **asdict(score), **_base(base)}
            for idx, score, base in zip(context.data.evaluation["idx"][:], scores, base_scores, strict=True)
        ]

    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return loss (nats per answer token), perplexity and token accuracy, and the backbone's. Pure."""
        n, tokens = len(predictions), sum(row["tokens"] for row in predictions)
        scores: dict[str, Score] = {}
        for prefix in ("", "base_"):
            sums = [row[f"{prefix}log_probability"] for row in predictions]
            if None in sums or not tokens:
                reason = "the backbone was not evaluated" if tokens else "no answer token"
                made = dict.fromkeys(("loss", "perplexity", "token_accuracy"), Score(value=None, n=n, reason=reason))
            else:
                right = sum(row[f"{prefix}correct"] for row in predictions)
                made = _means(-math.fsum(sums) / tokens, right / tokens, n)
            scores |= {f"{prefix}{name}": value for name, value in made.items()}
        return scores


def _base(score: "AnswerScore | None") -> dict[str, Any]:
    if score is None:
        return {"base_log_probability": None, "base_correct": None}
    return {"base_log_probability": score.log_probability, "base_correct": score.correct}


def _means(loss: float, accuracy: float, n: int) -> dict[str, Score]:
    if not math.isfinite(loss):
        broken = Score(value=None, n=n, reason=f"the loss is {loss}")
        return {"loss": broken, "perplexity": broken, "token_accuracy": Score(value=accuracy, n=n)}
    large = loss > math.log(1e300)
    perplexity = Score(value=None, n=n, reason="too large for a number") if large else Score(value=math.exp(loss), n=n)
    return {"loss": Score(value=loss, n=n), "perplexity": perplexity, "token_accuracy": Score(value=accuracy, n=n)}
