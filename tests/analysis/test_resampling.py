import math

import numpy as np
import pytest
from scipy import stats

from lorta.analysis.resampling import (
    Resampler,
    Scores,
    Variance,
    interquartile_mean,
    mean_interval,
    middle_interval,
    pool,
)

DATA_SETS = 2000


def study(generator: np.random.Generator, seeds: int, items: int, seed_spread: float, item_spread: float) -> np.ndarray:
    """Return right (1) and wrong (0) answers, (seeds, items), of a method whose true accuracy is 0.8."""
    skill = generator.normal(0, seed_spread, (seeds, 1)) + generator.uniform(-item_spread, item_spread, (1, items))
    return (generator.random((seeds, items)) < 0.8 + skill).astype(float)


def scores(answers: np.ndarray, with_items: bool = True) -> Scores:
    return Scores(tuple(range(len(answers))), answers.mean(axis=1), answers if with_items else None)


def coverage(seeds: int, items: int, seed_spread: float, item_spread: float = 0.19) -> float:
    generator, resampler = np.random.default_rng(1), Resampler(1000)
    covered = 0
    for _ in range(DATA_SETS):
        found = scores(study(generator, seeds, items, seed_spread, item_spread))
        interval = mean_interval([resampler.spread("task", found)], found.values.mean())  # type: ignore[list-item]
        covered += interval.low <= 0.8 <= interval.high
    return covered / DATA_SETS


@pytest.mark.parametrize(
    ("seeds", "items", "seed_spread", "most"),
    [
        (5, 300, 0.0, 0.98),
        (5, 300, 0.03, 0.97),
        (3, 300, 0.015, 0.98),
        (3, 300, 0.05, 0.97),
        (2, 300, 0.03, 0.98),
        (2, 300, 0.0, 0.995),  # the seeds' part is what seeds and items do together, which is more than they show
        (2, 30, 0.0, 0.995),
        (1, 300, 0.0, 0.97),
    ],
)
def test_interval_over_seeds_and_items_covers_the_truth_at_least_as_often_as_it_says(seeds, items, seed_spread, most):
    assert 0.94 <= coverage(seeds, items, seed_spread) <= most


def test_two_seeds_of_equal_score_that_are_right_on_different_rows_are_not_sure():
    answers = np.ones((2, 30))
    answers[0, :4] = answers[1, 4:8] = 0
    spread = Resampler(20_000).spread("task", scores(answers))
    rest = answers - answers.mean(axis=1, keepdims=True) - answers.mean(axis=0) + answers.mean()
    together = (rest**2).sum() / 29 / 60
    assert spread.over_seeds == pytest.approx((together, 29.0))
    assert spread.by_seeds.var() == pytest.approx(together, rel=0.05)
    interval = mean_interval([spread], answers.mean())
    assert interval.high - interval.low > 3.9 * math.sqrt(together)
    assert interval.alike == 0


def test_seeds_that_differ_less_than_their_rows_keep_their_order():
    answers = np.ones((3, 40))
    answers[0, :8] = answers[1, 8:16] = answers[2, 16:25] = 0
    spread = Resampler().spread("task", scores(answers))
    assert spread.deviations.argmin() == 2
    assert spread.deviations[0] == pytest.approx(spread.deviations[1])
    assert spread.over_seeds.freedom == pytest.approx(2 * 39)


@pytest.mark.parametrize(("answers", "alike"), [(np.ones((3, 30)), 30), (np.zeros((1, 12)), 12), (np.eye(2), 0)])
def test_rows_that_were_all_scored_the_same_are_counted(answers, alike):
    spread = Resampler().spread("task", scores(answers))
    assert (spread.alike, mean_interval([spread], answers.mean()).alike) == (alike, alike)
    mixed = Resampler().spread("other", scores(np.eye(2)))
    assert mean_interval([spread, mixed], 0.5).alike == 0


def test_percentiles_of_resampled_seeds_would_not():
    generator = np.random.default_rng(2)
    values = generator.normal(size=(DATA_SETS, 5))
    draws = values[:, generator.integers(5, size=(500, 5))].mean(axis=2)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0) & (high >= 0)) < 0.87


def test_without_items_the_interval_is_students():
    values = np.array([71.0, 74.5, 72.0, 73.0, 70.0])
    interval = mean_interval([Resampler(20_000).spread("task", Scores(tuple(range(5)), values))], values.mean())
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.1)
    assert interval.parts == ((1.0, 4.0),)


def test_resampled_variance_is_that_of_the_analysis_of_variance():
    answers = study(np.random.default_rng(3), 4, 200, 0.02, 0.19)
    found = Resampler(20_000).spread("task", scores(answers))
    of_seeds, of_items = answers.mean(axis=1).var(ddof=1), answers.mean(axis=0).var(ddof=1)
    rest = answers - answers.mean(axis=1, keepdims=True) - answers.mean(axis=0) + answers.mean()
    together = (rest**2).sum() / (3 * 199)
    assert found.means.var() == pytest.approx(of_seeds / 4 + of_items / 200 - together / 800, rel=0.05)


def test_methods_of_a_task_share_their_draws():
    answers = study(np.random.default_rng(4), 3, 100, 0.02, 0.19)
    resampler = Resampler()
    same = resampler.spread("task", scores(answers)), resampler.spread("task", scores(answers))
    assert np.array_equal(same[0].means, same[1].means)
    assert not np.array_equal(same[0].means, resampler.spread("other", scores(answers)).means)


def test_paired_difference_of_like_methods_is_narrower_than_an_unpaired_one():
    answers = study(np.random.default_rng(5), 3, 400, 0.03, 0.19)
    better = np.maximum(answers, (np.random.default_rng(6).random(answers.shape) < 0.1).astype(float))
    alone, paired = Resampler(), Resampler().spread("task", scores(better).minus(scores(answers)))
    apart = sum(alone.spread("task", scores(found)).means.var() for found in (answers, better))
    assert paired.means.var() < 0.2 * apart


def test_items_beyond_one_block_count_too():
    answers = study(np.random.default_rng(7), 2, 7000, 0.0, 0.19)
    found = Resampler(2000).spread("task", scores(answers))
    assert found.by_items.var() == pytest.approx(found.over_items.value, rel=0.1)


def test_differences_of_prepared_scores_are_those_of_others():
    plain = [scores(study(np.random.default_rng(seed), 3, 1500, 0.02, 0.19)) for seed in (10, 11)]
    without = Scores(plain[0].seeds, plain[0].values)
    *prepared, same = Resampler().prepare("task", [*plain, without])
    assert same is without
    expected = Resampler().spread("task", plain[0].minus(plain[1]))
    assert prepared[0].minus(prepared[1]).drawn is not None
    found = Resampler().spread("task", prepared[0].minus(prepared[1]))
    assert found.by_items == pytest.approx(expected.by_items, abs=1e-12)
    assert found.by_items.std() > 0


def test_fewer_items_are_drawn_as_the_first_of_many():
    resampler, answers = Resampler(), study(np.random.default_rng(12), 2, 300, 0.02, 0.19)
    resampler.spread("task", scores(answers))
    few = resampler.spread("task", scores(answers[:, :200]))
    assert np.array_equal(few.by_items, Resampler().spread("task", scores(answers[:, :200])).by_items)


def test_one_seed_without_items_has_no_spread():
    assert Resampler().spread("task", Scores((0,), np.array([80.0]))) is None


def test_differences_of_other_seeds_are_refused():
    with pytest.raises(ValueError, match="needs the same seeds"):
        Scores((0,), np.array([1.0])).minus(Scores((1,), np.array([1.0])))


@pytest.mark.parametrize("count", [4, 5, 18, 30])
def test_interquartile_mean_is_scipys_trimmed_mean(count):
    values = np.random.default_rng(8).normal(size=(3, count))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=1))


def test_interquartile_mean_is_not_moved_by_one_failed_run():
    runs = np.array([90.0, 91, 92, 90, 91, 92, 90, 12])
    spreads = [
        Resampler().spread(name, Scores((0, 1, 2, 3), part)) for name, part in (("a", runs[:4]), ("b", runs[4:]))
    ]
    assert middle_interval(spreads).value > 90  # type: ignore[arg-type]


def test_degrees_of_freedom_of_one_variance_are_its_own():
    assert pool([Variance(2.0, 4.0), Variance(0.0, 100.0)]) == (2.0, 4.0)
    assert pool([Variance(1.0, 4.0), Variance(1.0, 4.0)]) == (2.0, 8.0)
    assert pool([Variance(0.0, 4.0), Variance(0.0, 9.0)]) == (0.0, 9.0)


@pytest.mark.parametrize(("seeds", "p"), [(2, 0.5), (3, 0.25), (6, 1 / 32)])
def test_equal_differences_of_few_seeds_are_not_sure(seeds, p):
    scores = Scores(tuple(range(seeds)), np.full(seeds, 0.4))
    assert mean_interval([Resampler().spread("task", scores)], 0.4).p_of_zero == p  # type: ignore[list-item]


def test_p_is_the_level_whose_interval_ends_at_zero():
    answers = study(np.random.default_rng(9), 3, 200, 0.02, 0.19)
    spread = Resampler().spread("task", scores(answers))
    interval = mean_interval([spread], 0.0)
    at_the_edge = mean_interval([spread], interval.high)
    assert len(interval.parts) == 2
    assert at_the_edge.p_of_zero == pytest.approx(0.05, abs=1e-6)
    assert (interval.p_of_zero, mean_interval([spread], 80.0).p_of_zero < 1e-3) == (1.0, True)


def test_smallest_p_is_not_rounded_to_a_grid():
    spread = Resampler().spread("task", scores(study(np.random.default_rng(9), 3, 200, 0.02, 0.19)))
    wide, wider = (mean_interval([spread], value).p_of_zero for value in (5_000.0, 10_000.0))
    assert 0 < wider < wide < 1e-3
