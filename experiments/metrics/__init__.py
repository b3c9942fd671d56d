"""Scores of predictions: our own `evaluate` modules, with a reason where a metric is undefined.

`evaluate` takes seconds to import, so it is imported by the first score.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from lorta.harness.record import Score

if TYPE_CHECKING:
    from experiments.metrics.glue import Glue

GLUE_METRICS = {  # the first is the one that tables show, as in VeRA, arXiv:2310.11454, section 4.1
    "cola": ("matthews_correlation",),
    "sst2": ("accuracy",),
    "mrpc": ("accuracy", "f1"),
    "qqp": ("accuracy", "f1"),
    "stsb": ("pearson", "spearmanr"),
    "mnli": ("accuracy",),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
}


def score(task: str, predictions: Sequence[float], references: Sequence[float]) -> dict[str, Score]:
    """Return GLUE's metrics of one task, each between -1 and 1, in the order of `GLUE_METRICS`.

    `predictions` and `references` are class indices, or real scores for stsb. What cannot be computed (no rows, NaN
    predictions, a correlation with a constant) is a Score without a value that says why. Raises ValueError for lists of
    different length and for an unknown task.
    """
    if task not in GLUE_METRICS:
        raise ValueError(f"there are no metrics for the task '{task}'; known: {', '.join(GLUE_METRICS)}.")
    if len(predictions) != len(references):
        raise ValueError(f"{task}: {len(predictions)} predictions cannot be scored with {len(references)} references.")
    count = len(references)
    if problem := _unusable(predictions):
        return {name: Score(value=None, n=count, reason=problem) for name in GLUE_METRICS[task]}
    values = _module(task).of(predictions, references)
    return {name: _score(values[name], predictions, references) for name in GLUE_METRICS[task]}


def _unusable(predictions: Sequence[float]) -> str | None:
    if len(predictions) == 0:
        return "no rows were scored"
    bad = sum(not math.isfinite(value) for value in predictions)
    return f"{bad} of {len(predictions)} predictions are NaN or infinite" if bad else None


def _score(value: float, predictions: Sequence[float], references: Sequence[float]) -> Score:
    count = len(references)
    if math.isfinite(value):
        return Score(value=value, n=count)
    if count == 1:
        return Score(value=None, n=count, reason="a correlation needs at least two rows, got one")
    constant = "predictions" if len(set(predictions)) == 1 else "references"
    return Score(value=None, n=count, reason=f"a correlation is undefined because all {constant} are equal")


@cache
def _module(task: str) -> "Glue":
    from experiments.metrics.glue import Glue

    return Glue(config_name=task, keep_in_memory=True)
