"""Whether a model still tells rows apart, or answers (nearly) the same to all of them: it has collapsed.

Numbers: predictions of a calibrated model (the labels' regression on them has slope 1) that vary k times as much as the
labels explain k^2 of the labels' variance. `SMALLEST_SHARE` is the k at which that is `EXPLAINED_AT_LEAST`: below it,
the mean squared error is that of a constant but for a twentieth. Classes: one class for all rows.
"""

import math
import statistics
from collections.abc import Sequence

from lorta.records.sections import Spread

# Ours. LoRA r=8 on STS-B under protocol 1, with a Pearson correlation of 0.10, had k = 0.13; one with 0.73 has 0.84
EXPLAINED_AT_LEAST = 0.05
SMALLEST_SHARE = math.sqrt(EXPLAINED_AT_LEAST)  # 0.22, of the labels' standard deviation


def spread_of_numbers(predictions: Sequence[float], labels: Sequence[float]) -> Spread:
    """Return the sample standard deviations of predictions and labels, in the labels' unit, 0 for fewer than two."""
    finite = all(map(math.isfinite, predictions))
    predicted, labelled = _deviation(predictions) if finite else None, _deviation(labels)
    collapsed = predicted is not None and predicted < SMALLEST_SHARE * labelled
    return Spread(
        predictions_std=predicted,
        labels_std=labelled,
        predicted_classes=None,
        label_classes=None,
        collapsed=collapsed,
    )


def spread_of_classes(predictions: Sequence[object], labels: Sequence[object]) -> Spread:
    """Return how many classes are predicted, and how many the labels have."""
    predicted, labelled = len(set(predictions)), len(set(labels))
    return Spread(
        predictions_std=None,
        labels_std=None,
        predicted_classes=predicted,
        label_classes=labelled,
        collapsed=predicted == 1 < labelled,
    )


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
