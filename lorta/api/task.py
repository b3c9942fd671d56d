"""The protocol of a problem: what a file under `experiments/` has to offer. Data, training, prediction, score.

A task is built while a sweep is planned, without torch: heavy imports belong inside the methods that need them.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lorta.config.settings import DataSettings, TrainerSettings
from lorta.geometry import Geometry
from lorta.records.row_counts import RowCount
from lorta.records.sections import Score

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from lorta.models.backbone import Backbone
    from lorta.models.locate import ModelFiles
    from lorta.training.trainer import TrainingOutcome

Source = Literal["embedded", "local", "hub"]


@dataclass(frozen=True)
class DataPlan:
    """Where a task's rows will come from, and what fixes them; known before anything heavy is imported."""

    source: Source
    revision: str  # of the hub dataset or the embedded language; for local files "sha256"
    fingerprints: Mapping[str, str]  # "train", "evaluation" -> content hash, or revision and split
    # split -> rows as far as they are known before anything is tokenised; "all" where the split is not known yet
    counts: Mapping[str, RowCount] = field(default_factory=dict[str, RowCount])


@dataclass(frozen=True)
class DataSplits:
    """Tokenised rows: two sequences of mappings with input_ids, attention_mask and labels."""

    train: Any
    evaluation: Any
    counts: Mapping[str, RowCount] = field(default_factory=dict[str, RowCount])  # "train", "evaluation" -> rows


class Task(Protocol):
    """One task: classes under `experiments/` inherit it, with answers to what most tasks need not say.

    `protocol` is raised when a change of a task's code moves the numbers.
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
    def supports_quantization(self) -> bool:
        """Whether the backbone can be loaded in 8 or 4 bits."""
        return True

    @property
    def predicts_with_base(self) -> bool:
        """Whether `predict_untouched` is to be called."""
        return False

    def geometry(self, config: Mapping[str, Any]) -> Geometry:
        """Return the part of a model that is adapted, as its Backbone has it. Raises ValueError for other models."""
        return Geometry.from_config(config)

    @abstractmethod
    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source and check every file. Raises ValueError, one problem a line."""

    @abstractmethod
    def load_backbone(self, files: "ModelFiles", dtype: str) -> "Backbone":
        """Return model and tokenizer, with this task's head."""

    @abstractmethod
    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Return tokenised rows, from the cache where they are there."""

    def predict_untouched(self, backbone: "Backbone", data: DataSplits, settings: TrainerSettings) -> Any:
        """Return what predictions shall hold of the backbone itself, before an adapter comes: `backbone.untouched`."""

    @abstractmethod
    def train(
        self,
        model: "nn.Module",
        backbone: "Backbone",
        data: DataSplits,
        settings: TrainerSettings,
        seed: int,
        callbacks: "Sequence[TrainerCallback]",
        folder: Path,
    ) -> "TrainingOutcome":
        """Train what requires a gradient."""

    @abstractmethod
    def predict(
        self, model: "nn.Module", backbone: "Backbone", data: DataSplits, settings: TrainerSettings, folder: Path
    ) -> list[dict[str, Any]]:
        """Return one row per evaluation item: id, reference, prediction and what scoring needs.

        The rows become predictions.jsonl in the run's folder; what is no such row (structures) a task writes there.
        """

    @abstractmethod
    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return metric -> score. Pure: predictions from a file can be scored again."""
