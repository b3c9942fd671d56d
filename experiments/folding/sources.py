"""Where chains come from: the embedded folds, or a folder of structure files. There is no hub dataset. No torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.folding.target import Target
from experiments.rows import choose_source
from lorta.embedded.folds import FINGERPRINTS, FOLDS_REVISION, fold_rows
from lorta.harness.spec import DataSettings
from lorta.harness.task import DataPlan, DataSplits

SPLITS = {"train": "train", "evaluation": "validation"}  # the record's name -> the source's


def plan(name: str, data: DataSettings, model_default: str) -> DataPlan:
    """Return the source and the fingerprints of both splits. Raises ValueError when there is nothing to fold."""
    source = choose_source(data, model_default)
    if source == "embedded":
        return DataPlan(source, FOLDS_REVISION, {use: FINGERPRINTS[split] for use, split in SPLITS.items()})
    raise ValueError(
        f"task={name} has no hub dataset: set data.root=FOLDER with protein/index.tsv and structure files, or "
        "data.source=embedded for toy folds"
    )


def read(name: str, plan: DataPlan, data: DataSettings) -> DataSplits:
    """Return both splits as `TargetRows`, capped by data.max_train_samples and data.max_eval_samples."""
    from experiments.folding.batches import TargetRows

    splits = {use: [Target(*row) for row in fold_rows(split)] for use, split in SPLITS.items()}
    return DataSplits(TargetRows(splits["train"]), TargetRows(splits["evaluation"]))
