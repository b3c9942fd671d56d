"""Where chains come from: the embedded folds, or a folder of structure files. There is no hub dataset. No torch."""

from typing import TYPE_CHECKING

from experiments.folding.index import plan_targets, require_both_sides
from experiments.folding.splits import fingerprints, split_targets
from experiments.folding.target import Target
from experiments.rows import cap, choose_source
from lorta.api.task import DataPlan, DataSplits
from lorta.config.settings import DataSettings
from lorta.embedded.folds import FINGERPRINTS, FOLDS_REVISION, fold_rows

if TYPE_CHECKING:
    from experiments.folding.batches import TargetRows

SPLITS = {"train": "train", "evaluation": "validation"}  # the record's name -> the embedded folds'


def plan(name: str, data: DataSettings, model_default: str, identity: float, share: float) -> DataPlan:
    """Return the source and the fingerprints of both splits, all structure files of a local source read and checked.

    `identity` and `share` are those of `splits`. Raises ValueError when there is nothing to fold.
    """
    source = choose_source(data, model_default)
    if source == "embedded":
        return DataPlan(source, FOLDS_REVISION, {use: FINGERPRINTS[split] for use, split in SPLITS.items()})
    if source == "local":
        planned = plan_targets(data.root or "")
        require_both_sides(data.root or "", planned)
        return DataPlan(source, "sha256", fingerprints(planned, identity, share))
    raise ValueError(
        f"task={name} has no hub dataset: set data.root=FOLDER with structures in FOLDER/protein, or "
        "data.source=embedded for toy folds"
    )


def read(name: str, plan: DataPlan, data: DataSettings, identity: float, share: float) -> DataSplits:
    """Return both splits as `TargetRows`, capped by data.max_train_samples and data.max_eval_samples.

    Raises ValueError when one side of a local split would be empty.
    """
    from experiments.folding.batches import TargetRows

    def rows(targets: "list[Target]", most: int | None) -> "TargetRows":
        kept: list = cap(targets, most, name)  # pyright: ignore[reportArgumentType]
        return TargetRows(kept, refused, remarks)

    refused, remarks = (), ()
    if plan.source == "embedded":
        train, evaluation = ([Target(*row) for row in fold_rows(split)] for split in SPLITS.values())
    else:
        planned = plan_targets(data.root or "")
        refused, remarks = planned.refused, planned.remarks
        split = split_targets(planned, identity, share)
        train, evaluation = list(split.train), list(split.validation)
    return DataSplits(rows(train, data.max_train_samples), rows(evaluation, data.max_eval_samples))
