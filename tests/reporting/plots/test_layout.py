import pytest

from lorta.reporting.plots.layout import kept_apart, side_by_side


def test_equal_sizes_are_side_by_side_in_their_order_and_others_stay():
    first, second, third, other, last = side_by_side([5000, 5000, 5010, 20_000, 80_000], log=True)
    assert first < second < third < 5500
    assert first * third == pytest.approx(second**2)  # evenly, on a logarithmic axis
    assert (other, last) == (pytest.approx(20_000), pytest.approx(80_000))


def test_places_of_one_size_alone_differ():
    assert len(set(side_by_side([100.0] * 3, log=True))) == 3
    assert len(set(side_by_side([0.0] * 3, log=False))) == 3
    assert side_by_side([], log=True) == []


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([5.0, 2.0], [5.0, 2.0]),
        ([5.0, 5.0, 5.0], [4.0, 5.0, 6.0]),
        ([9.9, 9.8, 2.0], [10.0, 9.0, 2.0]),
        ([0.0, 0.5], [0.0, 1.0]),
        ([], []),
    ],
)
def test_labels_are_kept_apart_near_where_they_belong(wanted, places):
    assert kept_apart(wanted, 1.0, 0.0, 10.0) == pytest.approx(places)


def test_labels_that_do_not_fit_are_spread_evenly():
    assert kept_apart([3.0, 1.0, 2.0], 10.0, 0.0, 4.0) == [4.0, 0.0, 2.0]
