"""What training and prediction of one run have beside the model. No torch is imported here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorta.config.settings import TrainerSettings
from lorta.records.row_counts import RowCount

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from lorta.models.backbone import Backbone
    from lorta.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class DataSplits:
    """Tokenised rows: two sequences of mappings with input_ids, attention_mask and labels."""

    train: Any
    evaluation: Any
    counts: Mapping[str, RowCount] = field(default_factory=dict[str, RowCount])  # "train", "evaluation" -> rows


@dataclass(frozen=True)
class TrainingContext:
    """What a task is given to train and to predict with.

    Attributes:
        backbone: the pre-trained model as it was loaded, its tokenizer and its geometry.
        data: both splits, tokenised.
        settings: the trainer's settings, with the batch that fits into memory.
        seed: of what is drawn in training, such as dropout.
        folder: of the run; a task may write files of its own there.
        callbacks: what the method does between training steps.
        checkpoints: where training is saved and resumed, None where it is not.
        rate_factors: part of a weight's name -> factor of its learning rate.
        order_seed: of the data order, None for `seed`.
        base_predictions: what `Task.predict_base` returned before an adapter was attached, None without a call.
    """

    backbone: "Backbone"
    data: DataSplits
    settings: TrainerSettings
    seed: int = 0
    folder: Path = Path()
    callbacks: "Sequence[TrainerCallback]" = ()
    checkpoints: "Checkpoints | None" = None
    rate_factors: Mapping[str, float] = field(default_factory=dict[str, float])
    base_predictions: Any = None
    order_seed: int | None = None
