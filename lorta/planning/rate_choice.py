"""Which of several learning rates that trials can hardly tell apart a search chooses. No torch."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance


def lowest_alike(scores: Mapping[float, Sequence[float]], higher_is_better: bool) -> float:
    """Return the lowest rate whose mean score is within one standard error of the best rate's.

    The one-standard-error rule of Breiman et al. (1984), Classification and Regression Trees, 3.4.3: of models that
    cannot be told apart, the most careful one. A high rate collapses on some seeds before its mean falls.

    Args:
        scores: of each rate, its score on each seed of the trials, of at least two.
        higher_is_better: False for a loss.
    """
    means = {rate: fmean(values) for rate, values in scores.items()}
    best = max(means.values()) if higher_is_better else min(means.values())
    pooled = fmean(variance(values) for values in scores.values())  # two seeds alone would say little
    error = math.sqrt(pooled / len(next(iter(scores.values()))))
    return min(rate for rate, mean in means.items() if abs(mean - best) <= error)
