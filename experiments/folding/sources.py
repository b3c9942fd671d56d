"""Where chains come from: the embedded folds, or a folder of structure files. There is no hub dataset. No torch."""

from collections import Counter

from experiments.folding.index import Planned, plan_targets, require_both_sides
from experiments.folding.splits import fingerprints, split_targets
from experiments.folding.target import Target
from experiments.rows import capped, choose_source
from lorta.api.task import DataPlan, DataSplits
from lorta.config.settings import DataSettings
from lorta.embedded.folds import FINGERPRINTS, FOLDS_REVISION, fold_rows
from lorta.records.row_counts import RowCount

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
        return DataPlan(source, "sha256", fingerprints(planned, identity, share), _planned_counts(planned))
    raise ValueError(
        f"task={name} has no hub dataset: set data.root=FOLDER with structures in FOLDER/protein, or "
        "data.source=embedded for toy folds"
    )


def read(name: str, plan: DataPlan, data: DataSettings, identity: float, share: float) -> DataSplits:
    """Return both splits as `TargetRows`, capped by data.max_train_samples and data.max_eval_samples.

    Raises ValueError when one side of a local split would be empty.
    """
    from experiments.folding.batches import TargetRows

    planned, clusters = Planned((), (), ()), dict[str, int]()
    if plan.source == "embedded":
        sides = {use: [Target(*row) for row in fold_rows(split)] for use, split in SPLITS.items()}
    else:
        planned = plan_targets(data.root or "")
        split = split_targets(planned, identity, share)
        sides, clusters = {"train": list(split.train), "evaluation": list(split.validation)}, split.clusters
    most = {"train": data.max_train_samples, "evaluation": data.max_eval_samples}
    rows: dict[str, TargetRows] = {}
    counts: dict[str, RowCount] = {}
    for use, targets in sides.items():
        count = _with_lost(len(targets), planned, SPLITS[use])
        kept, counts[use] = capped(targets, count, most[use], use, name)
        rows[use] = TargetRows(kept, planned.refused, planned.remarks, clusters)
    return DataSplits(rows["train"], rows["evaluation"], counts)


def _planned_counts(planned: Planned) -> dict[str, RowCount]:
    """Return the targets of both sides, or of all where no index says how they are split."""
    if planned.split is None:
        return {"all": _with_lost(len(planned.targets), planned, "train")}
    return {use: _with_lost(planned.split.count(side), planned, side) for use, side in SPLITS.items()}


def _with_lost(usable: int, planned: Planned, side: str) -> RowCount:
    """Return the count of a side's targets; a lost one of which no side is known counts as one for training."""
    reasons = Counter(reason for given, reason in planned.lost if (given or "train") == side)
    return RowCount(usable + reasons.total(), dict(reasons))
