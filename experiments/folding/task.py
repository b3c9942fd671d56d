"""Folding: ESMFold learns to fold chains of another kind. The paper has no protocol, ours: docs/protocols/folding.md.

Values and their sources are in `conf/task/folding.yaml`. Importing this module loads no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from experiments.folding import metrics
from experiments.folding.settings import LossWeights
from experiments.folding.sources import plan, read
from experiments.folding.writing import prediction_row, write_structure, write_table
from lorta.api.task import DataPlan, Task
from lorta.config.settings import DataSettings
from lorta.geometry import Geometry
from lorta.models.backbone import Backbone
from lorta.models.locate import ModelFiles
from lorta.records.sections import Score
from lorta.training.context import DataSplits, TrainingContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from experiments.folding.training import Folded
    from lorta.training.trainer import TrainingOutcome

TRUNK = ("esm_s_mlp", "trunk", "distogram_head", "lddt_head")  # what `trunk: trained` trains, at the head's rate
STRUCTURES, LOSS = "structures", "loss_"


@dataclass(frozen=True)
class FoldingTask(Task):
    """Folding. `crop` is in residues, `recycles` the passes after the first one, as in transformers.

    Raises ValueError for settings that contradict or are out of range.
    """

    name: str
    protocol: int
    trunk: Literal["frozen", "trained"]
    adapted: Literal["language_model", "trunk"]  # whose attention the adapter changes
    crop: int
    recycles: int
    sampled_recycles: bool  # in training; if not, every batch has all of them
    clamped_share: float
    losses: Mapping[str, float]
    identity: float  # of two sequences, above which they are on one side of the split
    validation_share: float  # of the targets; both for local structures without a given split
    test_is_validation: bool
    primary: str = "lddt_ca"
    peft_task_type: str = "FEATURE_EXTRACTION"
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        try:
            LossWeights(**self.losses)
        except TypeError as error:
            raise ValueError(f"task.losses: {error}") from error
        allowed = {
            "trunk": self.trunk in ("frozen", "trained") and (self.trunk, self.adapted) != ("trained", "trunk"),
            "adapted": self.adapted in ("language_model", "trunk"),
            "crop": self.crop >= 2,
            "recycles": self.recycles >= 0,
            "clamped_share": 0 <= self.clamped_share <= 1,
            "identity": 0 < self.identity <= 1,
            "validation_share": 0 < self.validation_share < 1,
        }
        wrong = [f"task.{key}={getattr(self, key)}" for key, fits in allowed.items() if not fits]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: trunk is frozen or trained (only with adapted=language_model), adapted is "
                "language_model or trunk, crop at least 2 residues, recycles at least 0, the others fractions"
            )

    @property
    def run_modules(self) -> tuple[str, ...]:
        """Those of training and scoring; what they import themselves comes with them."""
        return (
            "experiments.folding.model",
            "experiments.folding.training",
            "experiments.folding.plots",
            "biotite.structure",
            "biotite.structure.io.pdb",
            "matplotlib.backends.backend_agg",
        )

    @property
    def supports_quantization(self) -> bool:
        """ESMFold's trunk computes in float32."""
        return False

    @property
    def predicts_with_base(self) -> bool:
        """The backbone's own structures stand beside the adapted model's."""
        return True

    def geometry(self, config: Mapping[str, Any]) -> Geometry:
        """Return the part of ESMFold that is adapted. Raises ValueError for a model without a folding trunk."""
        if not config.get("is_folding_model"):
            raise ValueError(
                f"task={self.name} needs a folding trunk, and this model_type '{config.get('model_type')}' has none: "
                "use model=tiny_esmfold or model=esmfold_v1"
            )
        shapes = Geometry.from_config({**config, "adapted_part": self.adapted})
        head = TRUNK if self.trunk == "trained" else ()
        return replace(shapes, architecture=replace(shapes.architecture, head=head))

    def plan_data(self, data: DataSettings, model_default: str) -> DataPlan:
        """Choose the source and check every structure file. Raises ValueError when none is left."""
        return plan(self.name, data, model_default, self.identity, self.validation_share)

    def load_backbone(self, files: ModelFiles, dtype: str) -> Backbone:
        """Return ESMFold, frozen; `dtype` is its language model's."""
        from experiments.folding.model import load_folding_model
        from lorta.models.tokenizer import load_tokenizer

        model = load_folding_model(files, dtype)
        model.config.adapted_part = self.adapted  # read by methods that look at the model's geometry themselves
        return Backbone(model, load_tokenizer(files), self.geometry(files.config), files)

    def load_data(
        self, plan: DataPlan, data: DataSettings, tokenizer: "PreTrainedTokenizerBase", cache: Path
    ) -> DataSplits:
        """Return both splits as `TargetRows`. The model numbers residues itself, so the tokenizer is not asked."""
        return read(self.name, plan, data, self.identity, self.validation_share)

    def train(self, model: "nn.Module", context: TrainingContext) -> "TrainingOutcome":
        """Train with transformers.Trainer; the epoch's score is the primary metric on the evaluation chains."""
        from experiments.folding.batches import TrainingBatches
        from experiments.folding.training import train_folding

        settings, rows = context.settings, len(context.data.train)
        parts = settings.gradient_accumulation_steps, ceil(rows / settings.per_device_train_batch_size)
        batches = TrainingBatches(self.crop, self.recycles, self.sampled_recycles, context.seed, *parts)
        weights = LossWeights(**self.losses)
        return train_folding(
            model, context, batches, weights, self.clamped_share, lambda: self.epoch_score(model, context)
        )

    def predict_base(self, context: TrainingContext) -> dict[str, Any]:
        """Return where ESMFold puts the CA before an adapter is attached: name -> (L, 3), angstrom."""
        rows = self.epoch_rows(context.backbone.model, context)
        return {row["name"]: row["predicted_ca"] for row in rows}

    def predict(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return a row per chain: `prediction_row`'s, the losses, and where the model alone, frozen, puts the CA.

        Writes structures/NAME.pdb with confidence as B-factors, and targets.csv, which also names refused files.
        """
        folded, data, folder = self._fold(model, context), context.data, context.folder
        rows = self._rows(folded, data)
        if context.base_predictions is not None:
            rows = [row | {"base_ca": context.base_predictions[row["name"]]} for row in rows]
        remarks = [*data.evaluation.remarks]
        for row, made in zip(rows, folded, strict=True):
            file = folder / STRUCTURES / f"{row['name']}.pdb"
            try:
                write_structure(file, row["sequence"], made.positions, made.mask, made.confidence)
            except ValueError as error:  # a model that diverged; the scores say so too
                remarks.append((row["name"], str(error)))
        write_table(folder, rows, data.evaluation.refused, remarks)
        return rows

    def score(self, predictions: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        """Return means over chains of `metrics` and of the losses, and the frozen model's primary metric. Pure."""
        scores = metrics.score(predictions)
        for name in (*asdict(LossWeights(**self.losses)), "total"):
            key = LOSS + name
            if all(key in row for row in predictions) and predictions:
                scores[key] = _mean([row[key] for row in predictions])
        if predictions and all("base_ca" in row for row in predictions):
            base = [{**row, "predicted_ca": row["base_ca"]} for row in predictions]
            scores[f"base_{self.primary}"] = metrics.score(base)[self.primary]
        return scores

    def epoch_rows(self, model: "nn.Module", context: TrainingContext) -> list[dict[str, Any]]:
        """Return a row per chain, without files beside them."""
        return self._rows(self._fold(model, context), context.data)

    def _fold(self, model: "nn.Module", context: TrainingContext) -> "list[Folded]":
        from experiments.folding.training import fold

        size = context.settings.per_device_eval_batch_size
        return fold(model, context.data.evaluation.targets, size, self.recycles, self.clamped_share)

    def _rows(self, folded: "Sequence[Folded]", data: DataSplits) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for target, made in zip(data.evaluation.targets, folded, strict=True):
            losses = {LOSS + name: value for name, value in made.losses.items()}
            losses[LOSS + "total"] = sum(weight * made.losses[name] for name, weight in self.losses.items())
            family = data.evaluation.clusters.get(target.name)
            row = prediction_row(target, made.positions, made.confidence) | losses
            rows.append(row if family is None else row | {"cluster": family})
        return rows


def _mean(values: Sequence[float | None]) -> Score:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        reason = f"{len(values) - len(known)} of {len(values)} chains have no finite value"
        return Score(value=None, n=len(values), reason=reason)
    return Score(value=fmean(known), n=len(values))
