"""Statistics over seeds, as pure functions of scores."""

import math
from collections.abc import Sequence
from statistics import fmean


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean, exactly rounded. Raises ValueError without values."""
    if not values:
        raise ValueError("a mean needs at least one value, got none.")
    return fmean(values)


def sample_std(values: Sequence[float]) -> float | None:
    """Return the standard deviation with n - 1 in the denominator, or None for fewer than two values."""
    if len(values) < 2:
        return None
    middle = fmean(values)  # statistics.stdev does the same in exact fractions, thirty times as slowly
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))
