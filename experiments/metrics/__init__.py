"""Scores of predictions, with a reason where a metric is undefined; `glue.py` offers them to `evaluate`.

scikit-learn and SciPy take half a second to import, so the first score that needs them does that.
"""

import math
from collections.abc import Sequence

from lorta.records.record import Score

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
OF_MORE_CLASSES = ("accuracy", "f1_macro", "matthews_correlation")
OF_CLASSES = ("accuracy", "f1", "f1_macro", "matthews_correlation")
OF_NUMBERS = ("pearson", "spearmanr")

MODULES = {  # metric -> the module that computes it, half a second to import where it is not needed
    "f1": "sklearn.metrics",
    "f1_macro": "sklearn.metrics",
    "matthews_correlation": "sklearn.metrics",
    "pearson": "scipy.stats",
    "spearmanr": "scipy.stats",
}


def modules_of(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the modules that compute these metrics."""
    return ("experiments.metrics.functions", *dict.fromkeys(MODULES[name] for name in metrics if name in MODULES))


def metrics_of(task: str, primary: str, labels: int, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the metrics of a classifier's task: those asked for, GLUE's own, or else the primary one alone.

    `task` is a task's name, whose last part GLUE may know; `labels` = 1 means numbers. Raises ValueError for a metric
    that does not exist or not for such labels, and for a primary one that is not among them.
    """
    names = tuple(asked) or GLUE_METRICS.get(task.rpartition("/")[2], (primary,))
    known = OF_NUMBERS if labels == 1 else OF_CLASSES if labels == 2 else OF_MORE_CLASSES
    if unknown := [name for name in names if name not in known]:
        kind = "numbers" if labels == 1 else f"{labels} classes"
        raise ValueError(f"task={task}: there is no metric {unknown[0]} of {kind}; there are {', '.join(known)}.")
    if primary not in names:
        raise ValueError(f"task.primary={primary}: task={task} has the metrics {', '.join(names)}, name one of them.")
    return names


def score(
    task: str, predictions: Sequence[float], references: Sequence[float], metrics: Sequence[str] = ()
) -> dict[str, Score]:
    """Return the metrics of one task, each between -1 and 1, in the order of `metrics`, or else of `GLUE_METRICS`.

    `predictions` and `references` are class indices, or real scores for correlations. What cannot be computed (no rows,
    NaN predictions, a correlation with a constant) is a Score without a value that says why. Raises ValueError for
    lists of different length and for an unknown task.
    """
    names = tuple(metrics) or GLUE_METRICS.get(task)
    if names is None:
        raise ValueError(f"there are no metrics for the task '{task}'; known: {', '.join(GLUE_METRICS)}.")
    if len(predictions) != len(references):
        raise ValueError(f"{task}: {len(predictions)} predictions cannot be scored with {len(references)} references.")
    count = len(references)
    if problem := _unusable(predictions):
        return {name: Score(value=None, n=count, reason=problem) for name in names}
    from experiments.metrics.functions import values_of

    values = values_of(names, predictions, references)
    return {name: _score(values[name], predictions, references) for name in names}


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
