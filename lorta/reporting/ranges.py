"""Where metrics end: intervals of means are symmetric and do not know it, readers do.

A share, such as accuracy, has the interval of Korn and Graubard (1998, Survey Methodology 24, 193-201): Clopper and
Pearson's exact one, for as many rows as would give the error that was measured over seeds and rows. It lies within 0
and 100, and is wider on the side that is farther from its end. Of about 19 right rows of 20 a symmetric one covers the
truth 63 times in 100, this one 99 times.
"""

from collections.abc import Collection
from dataclasses import replace

from scipy.special import betaincinv, ndtri

from lorta.analysis.resampling import TAIL, Interval
from lorta.analysis.significance import AVERAGE
from lorta.analysis.summary import POINTS, Table

SHARES, CORRELATIONS = ("accuracy", "f1", "f1_macro"), ("matthews_correlation", "pearson", "spearmanr")
LEAST = dict.fromkeys(SHARES, 0.0) | dict.fromkeys(CORRELATIONS, -POINTS)  # points; none is above 100

Ends = tuple[float, float]


def metric_ends(table: Table, column: str) -> Ends | None:
    """Return the least and the most that a column's score can be, None where that is not known."""
    metrics = set(table.metrics.values()) if column == AVERAGE else {table.metrics[column]}
    return ends_of(metrics) if table.higher_is_better else None


def ends_of(metrics: Collection[str]) -> Ends | None:
    """Return the least and the most points that some metrics, or their mean, can be; None where that is not known."""
    return (min(LEAST[metric] for metric in metrics), POINTS) if metrics and LEAST.keys() >= set(metrics) else None


def within_range(interval: Interval, table: Table, column: str) -> Interval:
    """Return the interval without what lies outside of the metric's range."""
    return within(interval, metric_ends(table, column))


def within(interval: Interval, ends: Ends | None) -> Interval:
    """Return the interval of a share, or of another metric without what lies outside of `ends`, if they are known."""
    if ends is None:
        return interval
    low, high = _of_share(interval) if ends == (0.0, POINTS) else (interval.low, interval.high)
    return replace(interval, low=max(low, ends[0]), high=min(high, ends[1]))


def _of_share(interval: Interval) -> tuple[float, float]:
    """Return the bounds of a share in points by the number of rows that have the interval's error."""
    share, half = interval.value / POINTS, (interval.high - interval.value) / POINTS
    variance = share * (1 - share)
    rows = interval.alike or (ndtri(TAIL) ** 2 * variance / half**2 if half > 0 else 0.0)
    if rows <= 0:
        return interval.low, interval.high
    right, wrong = share * rows, (1 - share) * rows
    low = betaincinv(right, wrong + 1, 1 - TAIL) if right > 0 else 0.0
    high = betaincinv(right + 1, wrong, TAIL) if wrong > 0 else 1.0
    return float(low) * POINTS, float(high) * POINTS


def difference_within(bounds: tuple[float, float], table: Table, column: str, alike: int = 0) -> tuple[float, float]:
    """Return the bounds of a difference of two scores without what no two scores differ by.

    Where both were scored alike on all of `alike` rows, other rows may differ: a share of at most 1 - 0.025^(1/alike).
    """
    ends = metric_ends(table, column)
    if ends is None:
        return bounds
    most = ends[1] - ends[0]
    others = most * (1 - (1 - TAIL) ** (1 / alike)) if alike else 0.0
    return max(bounds[0] - others, -most), min(bounds[1] + others, most)
