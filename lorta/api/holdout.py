"""Rows held out of a task's training data, to choose settings without a look at what is reported."""

import random
from pathlib import Path
from typing import Any

from lorta.api.task import DataPlan, DataSplits, Task
from lorta.config.settings import DataSettings
from lorta.records.row_counts import HOLDOUT, RowCount


def load_splits(task: Task, plan: DataPlan, data: DataSettings, tokenizer: Any, cache: Path) -> DataSplits:
    """Return a task's splits; with `data.holdout`, both are of its training rows, drawn without the run's seed.

    A cap on training rows is kept where there are enough. Raises ValueError when more would be held out than is left.
    """
    if data.holdout is None:
        return task.load_data(plan, data, tokenizer, cache)
    cap = data.max_train_samples
    wider = data.model_copy(update={"holdout": None, "max_train_samples": cap and cap + data.holdout})
    found = task.load_data(plan, wider, tokenizer, cache)
    rows = found.train
    if 2 * data.holdout > len(rows):
        raise ValueError(
            f"data.holdout={data.holdout} is more than half of {len(rows)} training rows: hold out fewer "
            "(tune.holdout with tune=lr)"
        )
    order = list(range(len(rows)))
    random.Random(f"lorta hold-out {task.name}").shuffle(order)
    held, kept = sorted(order[: data.holdout]), sorted(order[data.holdout :])
    counts: dict[str, RowCount] = {}
    if (count := found.counts.get("train")) is not None:
        counts = {"train": count.without(HOLDOUT, len(held)), "evaluation": RowCount(len(held))}
    return DataSplits(train=rows.select(kept), evaluation=rows.select(held), counts=counts)
