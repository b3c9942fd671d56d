"""GLUE's metrics as an `evaluate` module, for `evaluate.load(<this file>, <task>)` without a hub.

Which task has which metric: Wang et al. 2018, arXiv:1804.07461, and the hub's own `glue` module. The numbers are those
of scikit-learn and SciPy; a correlation that they leave undefined is NaN here, never an exception.
Keep `import` to one module per line: evaluate 0.4.6 scans these lines with a regular expression and trips over two.
"""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from experiments.metrics import GLUE_METRICS


def _accuracy(predictions, references) -> float:
    return accuracy_score(references, predictions)


def _f1(predictions, references) -> float:
    return f1_score(references, predictions, zero_division=0.0)  # pyright: ignore[reportArgumentType]


def _matthews(predictions, references) -> float:
    return matthews_corrcoef(references, predictions)


def _pearson(predictions, references) -> float:
    return _correlation(pearsonr, predictions, references)


def _spearman(predictions, references) -> float:
    return _correlation(spearmanr, predictions, references)


def _correlation(function: Callable[..., Any], predictions, references) -> float:
    if any(np.unique(values).size < 2 for values in (predictions, references)):
        return float("nan")
    return function(predictions, references).statistic


FUNCTIONS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
    "spearmanr": _spearman,
}


def values_of(names: Sequence[str], predictions, references) -> dict[str, float]:
    """Return these metrics without the Arrow table of `compute`: that takes 6 ms, and jackknives score 1,500 times."""
    return {name: float(FUNCTIONS[name](np.asarray(predictions), np.asarray(references))) for name in names}


class Glue(evaluate.Metric):
    """The metrics of one GLUE task, which is the configuration name. Raises KeyError for a task GLUE does not have."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in GLUE_METRICS:
            raise KeyError(f"GLUE has no task '{self.config_name}'; its tasks are {', '.join(GLUE_METRICS)}")
        kind = "float64" if self.config_name == "stsb" else "int64"
        return evaluate.MetricInfo(
            description="GLUE's metrics.",
            citation="Wang et al. 2018, arXiv:1804.07461",
            inputs_description="predictions and references: class indices, or scores for stsb",
            features=datasets.Features({"predictions": datasets.Value(kind), "references": datasets.Value(kind)}),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return values_of(GLUE_METRICS[str(self.config_name)], predictions, references)
