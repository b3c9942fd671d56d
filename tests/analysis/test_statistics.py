import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lorta.analysis.statistics import mean, sample_std, standard_error, t_interval

samples = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(samples)
def test_spread_equals_numpy_and_scipy(values):
    assert mean(values) == pytest.approx(np.mean(values), abs=1e-9)
    assert sample_std(values) == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert standard_error(values) == pytest.approx(stats.sem(values), abs=1e-9)


@given(samples, st.floats(0.5, 0.99))
def test_t_interval_equals_scipy(values, confidence):
    if np.ptp(values) < 1e-6:
        values = [*values, values[0] + 1.0]
    expected = stats.t.interval(confidence, len(values) - 1, np.mean(values), stats.sem(values))
    assert t_interval(values, confidence) == pytest.approx(expected, abs=1e-6)


def test_one_value_has_no_spread():
    assert (sample_std([1.0]), standard_error([1.0]), t_interval([1.0])) == (None, None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        mean([])


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_interval([1.0, 2.0], confidence)


def test_t_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    intervals = [t_interval(list(generator.normal(size=5))) for _ in range(2000)]
    covered = np.mean([interval[0] <= 0 <= interval[1] for interval in intervals if interval])
    assert 0.93 < covered < 0.97
