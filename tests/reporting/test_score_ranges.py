from dataclasses import replace

import pytest
from scipy.stats import binomtest

from lorta.analysis.resampling import Interval, Variance
from lorta.analysis.summary import summarise
from lorta.reporting.ranges import difference_within, ends_of, within
from tests.example_records import finished

SURE = Interval(100.0, 100.0, 100.0, 0.0, (Variance(1.0, 29.0),), alike=30)


@pytest.mark.parametrize("rows", [1, 12, 30, 1000])
def test_rows_that_are_all_right_have_the_exact_interval_of_a_share(rows):
    exact = binomtest(rows, rows).proportion_ci(0.95, "exact")
    found = within(replace(SURE, alike=rows), ends_of(["accuracy"]))
    assert (found.low, found.high) == (pytest.approx(100 * exact.low), 100.0)
    wrong = within(Interval(0.0, 0.0, 0.0, 0.0, SURE.parts, rows), ends_of(["accuracy"]))
    assert (wrong.low, wrong.high) == (0.0, pytest.approx(100 - 100 * exact.low))


def test_rows_that_are_not_alike_keep_their_interval_inside_the_range():
    found = within(Interval(90.0, 75.0, 105.0, 7.0, SURE.parts), ends_of(["accuracy"]))
    assert (found.low, found.high) == (75.0, 100.0)


def test_nothing_is_known_beyond_a_metric_without_ends():
    assert within(SURE, ends_of(["loss"])) == SURE


@pytest.mark.parametrize(("task", "most"), [("rte", 100.0), ("stsb", 200.0)])
def test_no_two_scores_differ_by_more_than_the_range_of_their_metric(task, most):
    (table,) = summarise([finished(task=task)])
    assert difference_within((-17015.9, 16984.6), table, f"glue/{task}") == (-most, most)
    assert difference_within((-3.0, 4.0), table, f"glue/{task}") == (-3.0, 4.0)
