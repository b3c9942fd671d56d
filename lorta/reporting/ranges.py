"""Where metrics end: intervals are symmetric and do not know it, readers do."""

from collections.abc import Collection
from dataclasses import replace

from lorta.analysis.resampling import Interval
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
    return (
        interval
        if ends is None
        else replace(interval, low=max(interval.low, ends[0]), high=min(interval.high, ends[1]))
    )
