import numpy as np
import pytest

from lorta.analysis.variance_shares import (
    FACTORS,
    TOGETHER,
    SeededScore,
    crossed_variances,
    one_at_a_time,
    variance_shares,
)

STUDIES = 2000


def crossed(grid: np.ndarray) -> list[SeededScore]:
    return [SeededScore(*place, float(score)) for place, score in np.ndenumerate(grid)]


def varied(factor: int, scores: list[float]) -> list[SeededScore]:
    """Return runs that vary one factor's seed from 1 on; seed 0 is the run that all factors share."""
    places = [[0, 0, 0] for _ in scores]
    for number, place in enumerate(places, 1):
        place[factor] = number
    return [SeededScore(*place, score) for place, score in zip(places, scores, strict=True)]


def test_one_at_a_time_gives_sample_variances():
    runs = [SeededScore(0, 0, 0, 80.0), *varied(0, [82.0, 84.0]), *varied(1, [81.0]), *varied(2, [80.0, 80.0])]
    init, order, dropout = variance_shares(runs)
    assert [(row.factor, row.variance, row.freedom) for row in (init, order, dropout)] == [
        ("init", 4.0, 2.0),
        ("order", 0.5, 1.0),
        ("dropout", 0.0, 2.0),
    ]
    assert (init.share, order.share, dropout.share) == (pytest.approx(8 / 9), pytest.approx(1 / 9), 0.0)
    assert init.deviation == 2.0
    assert init.interval == pytest.approx((2 * (2 / 7.377759) ** 0.5, 2 * (2 / 0.05063562) ** 0.5))  # chi-squared, 2
    assert dropout.interval is None


def test_crossed_runs_without_interaction_show_each_factor_alone():
    """Effects of -1 and 1 have the variance 2, of -2 and 2 the variance 8."""
    effects = np.array([-1.0, 1.0]), np.array([-2.0, 2.0]), np.array([0.0, 0.0, 0.0])
    grid = effects[0][:, None, None] + effects[1][None, :, None] + effects[2][None, None, :]
    rows = {row.factor: row for row in variance_shares(crossed(grid))}
    assert [rows[name].variance for name in (*FACTORS, TOGETHER)] == pytest.approx([2.0, 8.0, 0.0, 0.0])
    assert [rows[name].share for name in (*FACTORS, TOGETHER)] == pytest.approx([0.2, 0.8, 0.0, 0.0])


def test_what_factors_do_together_has_a_row_of_its_own():
    """Only the product of all three signs matters: its mean square is 8, all others are 0.

    The estimate of each factor is then (0 - 0 - 0 + 8) / 4.
    """
    sign = np.array([-1.0, 1.0])
    grid = sign[:, None, None] * sign[None, :, None] * sign[None, None, :]
    rows = {row.factor: row for row in variance_shares(crossed(grid))}
    assert rows[TOGETHER].variance == pytest.approx(8.0)
    assert [rows[name].variance for name in FACTORS] == pytest.approx([2.0, 2.0, 2.0])
    assert rows[TOGETHER].share == pytest.approx(8 / 14)
    assert rows[TOGETHER].interval is None


def draw(generator: np.random.Generator, shape: tuple[int, int, int], deviations: tuple[float, ...]) -> np.ndarray:
    """Return a crossed study whose factors, each pair of them, and all together have these deviations."""
    axes = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    grid = np.zeros(shape)
    for effect, deviation in zip(axes, deviations, strict=True):
        grid = grid + generator.normal(0, deviation, [shape[axis] if axis in effect else 1 for axis in range(3)])
    return grid


def test_crossed_variances_are_right_on_average():
    generator, deviations = np.random.default_rng(0), (3.0, 2.0, 4.0, 1.0, 0.5, 1.0, 0.7)
    found = [crossed_variances(draw(generator, (4, 5, 3), deviations)) for _ in range(STUDIES)]
    means = {name: np.mean([of[name][0] for of in found]) for name in found[0]}
    assert means["init"] == pytest.approx(9, rel=0.06)
    assert means["order"] == pytest.approx(4, rel=0.06)
    assert means["dropout"] == pytest.approx(16, rel=0.08)
    assert means[TOGETHER] == pytest.approx(1 + 0.25 + 1 + 0.49, rel=0.06)


def test_intervals_cover_the_true_deviation_as_often_as_they_say():
    generator = np.random.default_rng(1)
    alone, in_grid, without = 0, 0, 0
    for _ in range(STUDIES):
        scores = {(seed, 0, 0): score for seed, score in enumerate(generator.normal(0, 2.0, 5))}
        rows = variance_shares([SeededScore(*seeds, score) for seeds, score in scores.items()] + base(generator))
        alone += rows[0].interval[0] <= 2.0 <= rows[0].interval[1]  # type: ignore[index]
        grid = draw(generator, (4, 4, 4), (2.0, 1.0, 1.0, 0.3, 0.3, 0.3, 0.3))
        interval = variance_shares(crossed(grid))[0].interval
        without += interval is None
        in_grid += interval is not None and interval[0] <= 2.0 <= interval[1]
    assert 0.935 <= alone / STUDIES <= 0.965
    assert 0.93 <= in_grid / (STUDIES - without) <= 0.985
    assert without / STUDIES <= 0.05


def base(generator: np.random.Generator) -> list[SeededScore]:
    return [SeededScore(0, 1, 0, generator.normal()), SeededScore(0, 0, 1, generator.normal())]


def test_equal_runs_have_no_shares():
    rows = variance_shares(crossed(np.full((2, 2, 2), 80.0)))
    assert [(row.variance, row.share, row.interval) for row in rows] == [(0.0, 0.0, None)] * 4


def test_groups_of_several_bases_are_pooled():
    scores = {(0, 0, 0): 1.0, (1, 0, 0): 3.0, (0, 1, 0): 5.0, (1, 1, 0): 5.0, (2, 1, 0): 8.0}
    assert one_at_a_time(scores, 0) == (pytest.approx((2.0 + 6.0) / 3), 3.0)


def test_a_factor_that_is_never_varied_alone_is_named():
    runs = [SeededScore(seed, seed, seed, 80.0 + seed) for seed in range(3)]
    with pytest.raises(ValueError, match="the share of init needs two runs that differ in its seed alone, got none"):
        variance_shares(runs)


def test_no_runs_equal_seeds_and_failed_runs_are_refused():
    with pytest.raises(ValueError, match="the share of init needs two runs"):
        variance_shares([])
    with pytest.raises(ValueError, match="each combination of seeds once, got 1 again"):
        variance_shares([SeededScore(0, 0, 0, 1.0), SeededScore(0, 0, 0, 1.0)])
    with pytest.raises(ValueError, match="need finite scores; leave out the runs that failed"):
        variance_shares([SeededScore(0, 0, 0, float("nan"))])
