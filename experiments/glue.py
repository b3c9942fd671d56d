"""GLUE: sentence and sentence-pair classification, and similarity regression. Wang et al. 2019, arXiv:1804.07461.

Values of each task (columns, labels, metric) are in `conf/task/glue/`. Numbers are on the validation split, as in the
papers that are compared: GLUE's test labels are not public.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from experiments.metrics import metrics_of, modules_of, score
from experiments.rows import Columns, Row, capped, choose_source, plan_embedded, plan_hub, plan_local, read_rows
from lorta.api.task import DataPlan, Task
from lorta.config.settings import DataSettings
from lorta.models.backbone import Backbone, load_classifier
from lorta.models.locate import ModelFiles
from lorta.records.row_counts import RowCount
from lorta.records.sections import Score, Spread
from lorta.records.spread import spread_of_classes, spread_of_numbers
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from experiments.tokenised import Tokenised
    from lorta.training.trainer import TrainingOutcome


@dataclass(frozen=True)
class GlueTask(Task):
    """One GLUE task, or another of this form. `labels` = 1 means regression on [0, 5].

    `columns` are one or two text columns; `metrics` those of `experiments.metrics`, empty for GLUE's own or the primary
    one. Raises ValueError for other numbers of columns or labels, and for metrics that these do not have.
    """

    name: str
    protocol: int
    columns: Sequence[str]
    labels: int
    primary: str
    train_split: str
    evaluation_split: str
    test_is_validation: bool
    hub_id: str
    revision: str
    metrics: Sequence[str] = ()
    cluster: str | None = None  # a text column: rows with the same text in it are resampled together
    peft_task_type: str = "SEQ_CLS"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        if len(self.columns) not in (1, 2) or self.labels < 1:
            raise ValueError(
                f"task={self.name}: one or two columns and at least one label are needed, "
                f"got task.columns={list(self.columns)} and task.labels={self.labels}"
            )
        if self.cluster is not None and self.cluster not in self.columns:
            raise ValueError(f"task.cluster={self.cluster}: task={self.name} reads {', '.join(self.columns)}, name one")
        self._metrics()

    def _metrics(self) -> tuple[str, ...]:
        return metrics_of(self.name, self.primary, self.labels, self.metrics)

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Those of training and of the metrics."""
        return ("experiments.classification", "experiments.tokenised", *modules_of(self._metrics()))

    @property
    def supports_holdout(self) -> bool:
        """Rows of both splits are alike."""
        return True

    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source and check every line of local files. Raises ValueError, one problem a line."""
        source = choose_source(data, model_default)
        splits = {"train": self.train_split, "evaluation": self.evaluation_split}
        if source == "embedded":
            return plan_embedded(self.name, splits)
        if source == "local":
            return plan_local(self.name, data.root or "", splits, Columns(tuple(self.columns), self.labels))
        return plan_hub(self.name, self.hub_id, self.revision, splits)

    def load_backbone(self, files: ModelFiles, dtype: str) -> Backbone:
        """Return the model with a fresh classification head."""
        return load_classifier(files, self.labels, dtype)

    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Return both splits, tokenised, from the cache where they are there."""
        from experiments.tokenised import cached, encode_texts

        def split(use: str, name: str, most: int | None) -> "Tokenised":
            def make() -> tuple[dict[str, list[Any]], RowCount]:
                rows = self._checked(read_rows(plan, self.name, name, data, self.hub_id), name)
                kept, count = capped(rows, RowCount(len(rows)), most, use, self.name)
                return encode_texts(
                    kept, self.columns, tokenizer, data.max_length, self.labels == 1, count, self.cluster
                )

            return cached(self, plan, data, use, tokenizer, make, cache)

        train = split("train", self.train_split, data.max_train_samples)
        evaluation = split("evaluation", self.evaluation_split, data.max_eval_samples)
        counts = {"train": train.count, "evaluation": evaluation.count}
        return DataSplits(train.rows, evaluation.rows, counts)

    def start_head(self, backbone: Backbone, data: DataSplits) -> str | None:
        """Let a regression head answer with the mean of the training labels at first; classes start as drawn."""
        if self.labels > 1:
            return None
        from experiments.classification import start_at

        return start_at(backbone, mean(data.train["labels"][:]))

    def _checked(self, rows: list[Row], split: str) -> list[Row]:
        """Return the rows. Raises ValueError for one that cannot be used: those of a hub were not checked before."""
        check = Columns(tuple(self.columns), self.labels)
        for number, row in enumerate(rows):
            if problem := check.problem(row):
                raise ValueError(f"task={self.name}, {split} row {number}: {problem}")
        return rows

    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train with transformers.Trainer; the epoch's score is the primary metric on the evaluation split."""
        from experiments.classification import train_classifier

        rows = context.data.train.remove_columns(["idx", *(["cluster"] if self.cluster else [])])
        return train_classifier(model, context, rows, lambda: self.epoch_score(model, context))

    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return idx, reference, prediction (class or score) and logits of every evaluation row, in order."""
        from experiments.classification import logits

        rows, settings = context.data.evaluation, context.settings
        size, precision = settings.per_device_eval_batch_size, settings.precision
        outputs = logits(model, context.backbone.tokenizer, rows, size, precision)
        predictions = [row[0] for row in outputs] if self.labels == 1 else [row.index(max(row)) for row in outputs]
        lists = rows["idx"][:], rows["labels"][:]
        made = [
            {"idx": idx, "reference": reference, "prediction": prediction, "logits": row}
            for idx, reference, prediction, row in zip(*lists, predictions, outputs, strict=True)
        ]
        if self.cluster is None:
            return made
        return [row | {"cluster": cluster} for row, cluster in zip(made, rows["cluster"][:], strict=True)]

    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return this task's metrics. Pure: works on a predictions file."""
        task = self.name.rpartition("/")[2]
        columns = ([row[name] for row in predictions] for name in ("prediction", "reference"))
        return score(task, *columns, metrics=self._metrics())

    def spread(self, predictions: Sequence[Mapping[str, Any]]) -> Spread:
        """Return the spread of predicted and labelled scores, or the counts of classes."""
        of = spread_of_numbers if self.labels == 1 else spread_of_classes
        return of(*([row[name] for row in predictions] for name in ("prediction", "reference")))

    def try_scoring(self) -> None:
        """Score two rows."""
        self.score([{"prediction": value, "reference": value} for value in (0, 1)])
