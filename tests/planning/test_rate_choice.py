"""The one-standard-error rule, on numbers that can be checked by hand."""

import pytest

from lorta.planning.rate_choice import lowest_alike

# means 0.50, 0.78, 0.80; variances 0.0002, 0.0008, 0.0008: pooled 0.0006, standard error of a mean of two 0.01732
SCORES = {0.001: (0.49, 0.51), 0.01: (0.76, 0.80), 0.1: (0.78, 0.82)}


def test_a_rate_one_standard_error_away_counts_as_alike_and_two_do_not():
    assert lowest_alike(SCORES, True) == 0.1  # 0.02 is more than 0.01732
    assert lowest_alike(SCORES | {0.01: (0.765, 0.805)}, True) == 0.01  # 0.015 is less


@pytest.mark.parametrize("best", [0.001, 0.01, 0.1])
def test_without_spread_the_best_is_chosen(best):
    scores = {rate: (0.9, 0.9) if rate == best else (0.8, 0.8) for rate in SCORES}
    assert lowest_alike(scores, True) == best


def test_of_losses_the_lowest_counts():
    losses = {rate: tuple(1 - value for value in values) for rate, values in SCORES.items()}
    assert lowest_alike(losses, False) == 0.1
    assert lowest_alike(losses | {0.01: (0.235, 0.195)}, False) == 0.01


def test_more_seeds_tell_smaller_differences_apart():
    few = {0.01: (0.78, 0.80), 0.1: (0.79, 0.81)}  # 0.01 apart, standard error 0.01
    assert lowest_alike({rate: values * 1 for rate, values in few.items()}, True) == 0.01
    assert lowest_alike({rate: values * 4 for rate, values in few.items()}, True) == 0.1


def test_one_rate_is_its_own_choice():
    assert lowest_alike({0.3: (0.1, 0.9)}, True) == 0.3
