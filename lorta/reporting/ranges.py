"""Where metrics end: intervals are symmetric and do not know it, readers do."""

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
    if not metrics <= LEAST.keys() or not table.higher_is_better:
        return None
    return min(LEAST[metric] for metric in metrics), POINTS


def within_range(interval: Interval, table: Table, column: str) -> Interval:
    """Return the interval without what lies outside of the metric's range."""
    ends = metric_ends(table, column)
    return (
        interval
        if ends is None
        else replace(interval, low=max(interval.low, ends[0]), high=min(interval.high, ends[1]))
    )
