"""A question task: fine-tune a causal language model on question and answer, then score held-out questions.

`scoring` says how: `likelihood` of the options; or greedy generation, of which `option` reads the name of an option,
`number` a number, and `reading` the words shared with an answer. Values are in `conf/task/`, protocols in
`docs/protocols/questions.md`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from experiments.generation import Generation
from experiments.questions.scores import METRICS, likeliest, named_option, score
from experiments.questions.sources import RowSource, plan_questions
from lorta.api.task import DataPlan, Source, Task
from lorta.config.settings import DataSettings
from lorta.models.backbone import Backbone, load_causal_lm
from lorta.models.locate import ModelFiles
from lorta.records.row_counts import QUESTION_CUT, RowCount, RowsUnusable
from lorta.records.sections import Score, Spread
from lorta.records.spread import spread_of_classes
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from experiments.questions.formats import Question
    from lorta.training.trainer import TrainingOutcome


@dataclass(frozen=True)
class QuestionTask(Task):
    """One question task. `train` and `evaluation` are nodes of RowSource, `generation` one of Generation.

    `normalise` divides an option's log-probability by its tokens (mean) or does not (sum); `mark` stands before the
    number in an answer. Raises ValueError for values that contradict.
    """

    name: str
    protocol: int
    train_on: Mapping[str, Any]
    evaluate_on: Mapping[str, Any]
    scoring: Literal["likelihood", "option", "number", "reading"]
    loss_on: Literal["answer", "all"]
    primary: str
    test_is_validation: bool
    max_length: int  # tokens of prompt and answer together; what data.max_length is unless it is set
    generation: Mapping[str, Any]
    normalise: Literal["mean", "sum"] = "mean"
    mark: str = "####"
    score_backbone: bool = False  # the backbone answers the same questions before an adapter is attached
    cluster: str | None = None  # a text column: questions with the same text in it are resampled together
    peft_task_type: str = "CAUSAL_LM"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        allowed = {"scoring": tuple(METRICS), "loss_on": ("answer", "all"), "normalise": ("mean", "sum")}
        for key, values in allowed.items():
            if getattr(self, key) not in values:
                raise ValueError(f"task.{key}={getattr(self, key)}: there are {', '.join(values)}")
        Generation(**self.generation)
        for use in self._uses().values():
            use.built_format()

    def _uses(self) -> dict[str, RowSource]:
        return {"train": RowSource(**self.train_on), "evaluation": RowSource(**self.evaluate_on)}

    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source and check every line of local files. Raises ValueError, one problem a line."""
        return plan_questions(self.name, self._uses(), data, model_default)

    def load_backbone(self, files: ModelFiles, dtype: str) -> Backbone:
        """Return the causal language model."""
        return load_causal_lm(files, dtype)

    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Return training rows as tokens, and evaluation rows with prompt, options and references beside them.

        Questions to be scored by the likelihood of options that are equal as far as they fit are left out and counted.
        """
        from datasets import Dataset

        from experiments.questions.tokens import EQUAL_OPTIONS, evaluation_row, training_rows
        from experiments.tokenised import refuse_unknown

        most, counts = data.max_length, dict[str, RowCount]()
        learnt, counts["train"] = self._uses()["train"].questions(plan.source, data, self.name, "train")
        scored = self._uses()["evaluation"]
        asked, counts["evaluation"] = scored.questions(plan.source, data, self.name, "evaluation", self.cluster)
        encoded, cut = training_rows(tokenizer, [question for _, question in learnt], most, self.loss_on)
        train = Dataset.from_list(encoded)
        rows = [evaluation_row(tokenizer, idx, question, most) for idx, question in asked]
        evaluation = [row for row in rows if row.can_be_told] if self.scoring == "likelihood" else rows
        counts["train"] = counts["train"].noting(QUESTION_CUT, cut)
        counts["evaluation"] = counts["evaluation"].without(EQUAL_OPTIONS, len(rows) - len(evaluation))
        if not evaluation:
            left = f"data.max_length={most}: no row is left for evaluation, {counts['evaluation']}; raise it"
            raise RowsUnusable(left, counts)
        counts["evaluation"] = counts["evaluation"].noting(QUESTION_CUT, sum(row.told["cut"] for row in evaluation))
        read = {"train": train["input_ids"], "evaluation": [row.prompt_tokens for row in evaluation]}
        for use, ids in read.items():
            refuse_unknown(f"task={self.name}, {use} rows", {"input_ids": ids}, tokenizer, counts)
        return DataSplits(train, evaluation, counts)

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Those of training and scoring; what they import themselves comes with them."""
        return (
            "experiments.supervised",
            "experiments.tokenised",
            "experiments.questions.tokens",
            "experiments.questions.likelihood",
            "experiments.generation",
        )

    @property
    def predicts_with_base(self) -> bool:
        """Whether the backbone's own scores stand beside the adapted model's."""
        return self.score_backbone

    def predict_base(self, context: TrainingContext) -> list[dict[str, Any]]:
        """Return what the backbone answers."""
        return self._answers(context.backbone.model, context)

    def evaluation_questions(self, source: Source, data: DataSettings) -> "list[tuple[int, Question]]":
        """Return idx and question of every row that is scored."""
        return self._uses()["evaluation"].questions(source, data, self.name, "evaluation")[0]

    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train with TRL's SFTTrainer; the epoch's score is the primary metric on the evaluation questions."""
        from experiments.supervised import train_supervised

        return train_supervised(model, context, lambda: self.epoch_score(model, context))

    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return idx, references, and what was written or each option's log-probability, in the rows' order.

        What the backbone answered stands under "base" of each row.
        """
        rows = self._answers(model, context)
        if context.base_predictions is None:
            return rows
        told = [row.told.keys() for row in context.data.evaluation]
        return [
            row | {"base": {key: value for key, value in base.items() if key not in known}}
            for row, base, known in zip(rows, context.base_predictions, told, strict=True)
        ]

    def _answers(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        if self.scoring == "likelihood":
            return self._choose(model, context)
        return self._write(model, context)

    def _choose(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        from experiments.questions.likelihood import option_scores

        rows, settings = context.data.evaluation, context.settings
        option_sums = option_scores(
            model,
            context.backbone.tokenizer.pad_token_id,  # pyright: ignore[reportArgumentType]
            [row.option_tokens for row in rows],
            settings.per_device_eval_batch_size,
            self.normalise,
            settings.precision,
        )
        return [
            row.told | {"prediction": likeliest(scores), "scores": scores}
            for row, scores in zip(rows, option_sums, strict=True)
        ]

    def _write(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        from experiments.generation import write

        how, rows = Generation(**self.generation), context.data.evaluation
        prompts = [row.prompt_tokens for row in rows]
        written = write(model, context.backbone.tokenizer, prompts, how, context.settings.precision)
        predictions = [
            row.told | {"text": one.text, "tokens": one.tokens, "stopped": one.stopped, "mark": self.mark}
            for row, one in zip(rows, written, strict=True)
        ]
        if self.scoring == "option":
            return [row | {"prediction": named_option(row["text"], row["names"])} for row in predictions]
        return predictions

    def spread(self, predictions: Sequence[Mapping[str, Any]]) -> Spread | None:
        """Return how many places of options are answered and right; None where texts or numbers are written."""
        if self.scoring not in ("likelihood", "option"):
            return None
        return spread_of_classes(*([str(row[name]) for row in predictions] for name in ("prediction", "correct")))

    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return the metrics of `scoring`, each 0 to 1, and the backbone's. Pure: texts and scores are read again."""
        scores = score(self.scoring, predictions)
        if any("base" in row for row in predictions):
            of_base = score(self.scoring, [{**row, **row["base"]} for row in predictions])
            scores |= {f"base_{name}": value for name, value in of_base.items()}
        return scores
