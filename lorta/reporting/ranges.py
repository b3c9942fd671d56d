"""Where metrics end: intervals are symmetric and do not know it, readers do.

Rows that were all scored the same show no spread, which does not make the score certain: n of n rows right are a share
of at least 0.025^(1/n) (Clopper and Pearson 1934, for 95 %), and the rows beyond it can have any score. This is exact
for a mean over rows, such as accuracy.
"""

from collections.abc import Collection
from dataclasses import replace

from lorta.analysis.resampling import CONFIDENCE, Interval
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
    """Return the interval without what lies outside of `ends`, where these are known."""
    if ends is None:
        return interval
    others = 1 - ((1 - CONFIDENCE) / 2) ** (1 / interval.alike) if interval.alike else 0.0
    low, high = interval.low - others * (interval.value - ends[0]), interval.high + others * (ends[1] - interval.value)
    return replace(interval, low=max(low, ends[0]), high=min(high, ends[1]))


def difference_within(bounds: tuple[float, float], table: Table, column: str) -> tuple[float, float]:
    """Return the bounds of a difference of two scores without what no two scores differ by."""
    ends = metric_ends(table, column)
    if ends is None:
        return bounds
    most = ends[1] - ends[0]
    return max(bounds[0], -most), min(bounds[1], most)
