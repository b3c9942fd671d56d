import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import binomtest

from lorta.analysis.equivalence import judge
from lorta.analysis.equivalence import summarise as summarise_pairs
from lorta.analysis.resampling import Interval, Resampler, Scores, Variance, mean_interval
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


@pytest.mark.parametrize(("right", "rows"), [(19, 20), (39, 40), (160, 200)])
def test_a_share_has_the_exact_interval_of_the_rows_that_have_its_error(right, rows):
    share = right / rows
    half = ndtri(0.975) * math.sqrt(share * (1 - share) / rows)
    exact = binomtest(right, rows).proportion_ci(0.95, "exact")
    found = within(Interval(100 * share, 100 * (share - half), 100 * (share + half), half, SURE.parts), (0.0, 100.0))
    assert (found.low, found.high) == (pytest.approx(100 * exact.low), pytest.approx(100 * exact.high))


def test_one_wrong_row_never_raises_the_lower_bound():
    all_right = within(replace(SURE, alike=20), ends_of(["accuracy"]))
    answers = np.ones((2, 20)) * 100
    answers[:, 0] = 0
    scores = Scores((0, 1), answers.mean(axis=1), answers)
    one_wrong = within(mean_interval([Resampler().spread("task", scores)], 95.0), ends_of(["accuracy"]))
    assert one_wrong.low < all_right.low - 5


@pytest.mark.parametrize(("seeds", "rows", "truth"), [(1, 20, 0.95), (1, 300, 0.8), (3, 300, 0.95)])
def test_intervals_of_shares_cover_the_truth_at_least_as_often_as_they_say(seeds, rows, truth):
    generator, resampler, covered = np.random.default_rng(1), Resampler(500), 0
    for _ in range(500):
        skill = truth + generator.uniform(truth - 1, 1 - truth, (1, rows))
        answers = 100.0 * (generator.random((seeds, rows)) < skill)
        scores = Scores(tuple(range(seeds)), answers.mean(axis=1), answers)
        found = within(mean_interval([resampler.spread("task", scores)], answers.mean()), (0.0, 100.0))
        covered += found.low <= 100 * truth <= found.high
    assert covered >= 0.94 * 500


def test_other_metrics_keep_their_interval_inside_the_range():
    found = within(Interval(90.0, 75.0, 105.0, 7.0, SURE.parts), ends_of(["pearson"]))
    assert (found.low, found.high) == (75.0, 100.0)


def test_nothing_is_known_beyond_a_metric_without_ends():
    assert within(SURE, ends_of(["loss"])) == SURE


@pytest.mark.parametrize(("task", "most"), [("rte", 100.0), ("stsb", 200.0)])
def test_no_two_scores_differ_by_more_than_the_range_of_their_metric(task, most):
    (table,) = summarise([finished(task=task)])
    assert difference_within((-17015.9, 16984.6), table, f"glue/{task}") == (-most, most)
    assert difference_within((-3.0, 4.0), table, f"glue/{task}") == (-3.0, 4.0)


def test_two_methods_that_are_alike_on_all_rows_may_differ_on_others():
    (table,) = summarise([finished(task="rte")])
    same = summarise_pairs(Scores((0, 1), np.zeros(2), np.zeros((2, 64))))
    (answer,) = judge([same], [None])
    assert answer is not None and answer.alike == 64
    low, high = difference_within(answer.interval, table, "glue/rte", answer.alike)
    assert high == -low == pytest.approx(100 * (1 - 0.025 ** (1 / 64)))
    varied = np.zeros((2, 64))
    varied[0, :3] = 100
    (other,) = judge([summarise_pairs(Scores((0, 1), varied.mean(axis=1), varied))], [None])
    assert other is not None and other.alike == 0
