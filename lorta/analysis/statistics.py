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


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, or None for fewer than two values."""
    spread = sample_std(values)
    return None if spread is None else spread / math.sqrt(len(values))


def t_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the two-sided Student t interval of the mean, or None for fewer than two values.

    It covers the noise between seeds on one fixed evaluation set, not the choice of that set.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence must lie between 0 and 1, got {confidence}.")
    error = standard_error(values)
    if error is None:
        return None
    from scipy.special import stdtrit  # imported here: SciPy costs more than the rest of a table

    half_width = float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * error
    return mean(values) - half_width, mean(values) + half_width
