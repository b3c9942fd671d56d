"""Rows held out of a task's training data, to choose settings without a look at what is reported."""

import random
from pathlib import Path
from typing import Any

from lorta.api.task import DataPlan, DataSplits, Task
from lorta.config.settings import DataSettings
from lorta.records.row_counts import HOLDOUT, RowCount, RowsUnusable


def load_splits(task: Task, plan: DataPlan, data: DataSettings, tokenizer: Any, cache: Path) -> DataSplits:
    """Load the splits of a task. With `data.holdout`, both are training rows, and the evaluation split is not read.

    The held-out rows depend on the name of the task, not on the run's seed.

    Args:
        task: the task.
        plan: what its `plan_data` returned.
        data: the settings `data`. `max_train_samples` still holds for the rows that are trained on.
        tokenizer: the backbone's.
        cache: folder of tokenised rows.

    Returns:
        Training rows and rows that are scored.

    Raises:
        RowsUnusable: more than half of the training rows would be held out.

    Example:
        >>> from datasets import Dataset
        >>> class Ten:
        ...     name = "ten"
        ...     def load_data(self, plan, data, tokenizer, cache):
        ...         rows = Dataset.from_dict({"row": range(10)})
        ...         return DataSplits(train=rows, evaluation=rows)
        >>> settings = DataSettings(
        ...     source="local", root=None, max_train_samples=None, max_eval_samples=None, max_length=8, holdout=4
        ... )
        >>> splits = load_splits(Ten(), None, settings, None, None)
        >>> len(splits.train), len(splits.evaluation)
        (6, 4)
    """
    if data.holdout is None or isinstance(data.holdout, float):  # a fraction is the task's own way to split a file
        return task.load_data(plan, data, tokenizer, cache)
    cap = data.max_train_samples
    wider = data.model_copy(update={"holdout": None, "max_train_samples": cap and cap + data.holdout})
    loaded = task.load_data(plan, wider, tokenizer, cache)
    rows = loaded.train
    if 2 * data.holdout > len(rows):
        raise RowsUnusable(
            f"data.holdout={data.holdout} is more than half of {len(rows)} training rows: hold out fewer "
            "(tune.holdout with tune=lr)",
            loaded.counts,
        )
    order = list(range(len(rows)))
    random.Random(f"lorta hold-out {task.name}").shuffle(order)
    held, kept = sorted(order[: data.holdout]), sorted(order[data.holdout :])
    counts: dict[str, RowCount] = {}
    if (count := loaded.counts.get("train")) is not None:
        counts = {"train": count.without(HOLDOUT, len(held)), "evaluation": RowCount(len(held))}
    return DataSplits(train=rows.select(kept), evaluation=rows.select(held), counts=counts)
