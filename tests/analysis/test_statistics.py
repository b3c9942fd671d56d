import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorta.analysis.statistics import mean, sample_std

samples = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(samples)
def test_spread_equals_numpys(values):
    assert mean(values) == pytest.approx(np.mean(values), abs=1e-9)
    assert sample_std(values) == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_one_value_has_no_spread():
    assert sample_std([1.0]) is None


def test_mean_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one value"):
        mean([])
