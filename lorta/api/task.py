"""The interface of a task: what a class in `experiments/` has to offer. Data, training, prediction, score.

A task is built while a sweep is planned, without torch: heavy imports belong inside the methods that need them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lorta.config.settings import DataSettings
from lorta.geometry import Geometry
from lorta.records.row_counts import RowCount
from lorta.records.sections import Score, Spread
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from lorta.models.backbone import Backbone
    from lorta.models.locate import ModelFiles
    from lorta.training.trainer import TrainingOutcome

Source = Literal["embedded", "local", "hub"]


@dataclass(frozen=True)
class DataPlan:
    """Where the rows of a task come from, and what fixes their content; known before torch is imported.

    Args:
        source: "embedded", "local" or "hub".
        revision: of the hub data set or of the embedded language; "sha256" for local files.
        fingerprints: "train" and "evaluation" -> hash of the content, or revision and split.
        counts: split -> rows, as far as they are known before tokenisation.
        labels: names of the classes, in the order of the model's outputs; empty where the task's settings fix them.
        notes: sentences for the plan, about what was recognised in the files.

    Example:
        >>> DataPlan("hub", "bcdcba7", {"train": "bcdcba7 train", "evaluation": "bcdcba7 validation"}).source
        'hub'
    """

    source: Source
    revision: str  # of the hub dataset or the embedded language; for local files "sha256"
    fingerprints: Mapping[str, str]  # "train", "evaluation" -> content hash, or revision and split
    # split -> rows as far as they are known before anything is tokenised; "all" where the split is not known yet
    counts: Mapping[str, RowCount] = field(default_factory=dict[str, RowCount])
    labels: tuple[str, ...] = ()  # the names of the classes in the order of the outputs, where the data decide them
    notes: tuple[str, ...] = ()  # what a plan says of the data


class Task(Protocol):
    """One task. Classes in `experiments/` inherit it; methods that are not abstract suit most tasks.

    `protocol` is increased when a change of the task's code changes numbers.

    Example:
        >>> from experiments.glue import GlueTask
        >>> columns, splits = ["sentence1", "sentence2"], {"train_split": "train", "evaluation_split": "validation"}
        >>> rte = {"name": "glue/rte", "protocol": 1, "columns": columns, "labels": 2, "primary": "accuracy"} | splits
        >>> task = GlueTask(**rte, test_is_validation=True, hub_id="nyu-mll/glue", revision="bcdcba7")
        >>> rows = [{"id": 0, "reference": 1, "prediction": 1}, {"id": 1, "reference": 0, "prediction": 1}]
        >>> task.score(rows)["accuracy"].value
        0.5
    """

    name: str
    protocol: int
    peft_task_type: str  # SEQ_CLS, CAUSAL_LM, ...
    primary: str  # the metric that tables show
    higher_is_better: bool
    test_is_validation: bool

    @property
    def compares_with_backbone(self) -> bool:
        """Whether training needs the backbone back, as a reference model."""
        return False

    @property
    def supports_holdout(self) -> bool:
        """Whether rows of the training split, a datasets.Dataset, can be scored like those of evaluation."""
        return False

    @property
    def splits_a_file(self) -> bool:
        """Whether a fraction for `data.holdout` is the scored part of a single file."""
        return False

    @property
    def supports_quantization(self) -> bool:
        """Whether the backbone can be loaded in 8 or 4 bits."""
        return True

    @property
    def predicts_with_base(self) -> bool:
        """Whether `predict_base` is to be called."""
        return False

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Modules that training and scoring import: they are loaded once for all runs of a sweep, before the first."""
        return ()

    def geometry(self, config: Mapping[str, Any]) -> Geometry:
        """Describe the part of a model that is adapted.

        Args:
            config: the content of the model's config.json.

        Returns:
            Shapes and module names, as the task's backbone has them.

        Raises:
            ValueError: the architecture is not known.
        """
        return Geometry.from_config(config)

    @abstractmethod
    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source of the data and check every file.

        Args:
            data: the settings `data`.
            model_default: the source that the model was made for, used for `data.source=auto`.

        Returns:
            The source with its fingerprints.

        Raises:
            ValueError: data is missing or unusable; one problem per line.
        """

    def with_labels(self, labels: Sequence[str]) -> "Task":
        """Return the task with the classes of its data, `DataPlan.labels`; itself where its settings fix them."""
        return self

    @abstractmethod
    def load_backbone(self, files: "ModelFiles", dtype: str) -> "Backbone":
        """Load the model and its tokenizer.

        Args:
            files: where the model is.
            dtype: "fp32" or "bf16", of the frozen weights.

        Returns:
            The model with this task's head, the tokenizer and the geometry.
        """

    @abstractmethod
    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Tokenise the rows, or read them from the cache.

        Args:
            plan: what `plan_data` returned.
            data: the settings `data`, with caps and the maximal length in tokens.
            tokenizer: the backbone's.
            cache: folder of tokenised rows.

        Returns:
            The training rows and the rows that are scored.

        Raises:
            RowsUnusable: no row is left of a split; the run's record keeps the counts.
        """

    def start_head(self, backbone: "Backbone", data: DataSplits) -> str | None:
        """Set the fresh head to a start that depends on the training rows, before an adapter is attached.

        Args:
            backbone: the loaded model, whose head may be changed.
            data: both splits; only labels of the training rows may be read.

        Returns:
            A sentence for the record where the head could not be set, None otherwise.
        """

    def predict_base(self, context: TrainingContext) -> Any:
        """Predict with the backbone before an adapter is attached, where `predicts_with_base` says so.

        Args:
            context: as for `predict`; its backbone is on the run's device.

        Returns:
            Whatever `predict` wants to find in `context.base_predictions`.
        """

    @abstractmethod
    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train what requires a gradient, in place.

        Args:
            model: the backbone with the adapter and the task's head.
            context: rows, settings, callbacks and where checkpoints go.

        Returns:
            Losses by step, seconds, counts of tokens and rows.

        Raises:
            ArithmeticError: the loss is not finite.
            Preempted: the run was asked to leave, and a checkpoint is written.
        """

    @abstractmethod
    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Predict the evaluation rows.

        Args:
            model: the trained model; it is set to evaluation mode.
            context: rows, settings, and the run's folder, where a task writes what is no such row (structures).

        Returns:
            One row per evaluation item: id, reference, prediction and what scoring needs; predictions.jsonl.
        """

    def epoch_rows(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Predict the evaluation rows after an epoch, without files beside them.

        Args:
            model: the model in training.
            context: as for `predict`.

        Returns:
            The rows of `predict`.
        """
        return self.predict(model, context)

    def epoch_score(self, model: "nn.Module", context: TrainingContext) -> float:
        """Score the model after an epoch, for the choice of the best one.

        Args:
            model: the model in training.
            context: as for `predict`.

        Returns:
            The primary metric, negated where less of it is better; minus infinity where it is undefined.
        """
        value = self.score(self.epoch_rows(model, context))[self.primary].value
        if value is None:
            return float("-inf")
        return value if self.higher_is_better else -value

    @abstractmethod
    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Score predictions. Nothing else is read, so predictions from a file can be scored again.

        Args:
            predictions: the rows that `predict` returned.

        Returns:
            Name of a metric -> score, on the metric's own scale.
        """

    def spread(self, predictions: Sequence[Mapping[str, Any]]) -> Spread | None:
        """Return how much the answers vary beside the labels; None for tasks whose answers cannot be compared so.

        Args:
            predictions: the rows that `predict` returned.
        """

    def try_scoring(self) -> None:
        """Score made-up rows, so that what scoring lacks stops a run before it trains. Raises what it raises."""
        self.score([])
