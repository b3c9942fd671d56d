import numpy as np
import pytest

from lorta.analysis.clusters import cluster_codes, cluster_freedom, cluster_sums, item_variance, small_sample_factor
from lorta.analysis.equivalence import Difference, half_width, summarise
from lorta.analysis.resampling import Resampler, Scores, mean_interval

STUDIES = 2000


def scores(items: np.ndarray, clusters: np.ndarray | None) -> Scores:
    return Scores(tuple(range(len(items))), items.mean(axis=1), items, clusters=clusters)


def passages(sizes: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(sizes)), sizes)


def test_items_without_a_cluster_are_their_own():
    assert cluster_codes(["a", None, "b", "a", None]).tolist() == [0, 1, 2, 0, 3]
    assert cluster_codes([0, "alone", None]).tolist() == [0, 1, 2]


def test_sums_go_over_clusters_wherever_their_items_stand():
    values = np.array([[1.0, 2.0, 4.0, 8.0], [0.0, 1.0, 1.0, 3.0]])
    assert cluster_sums(values, np.array([0, 1, 0, 2])).tolist() == [[5.0, 2.0, 8.0], [1.0, 1.0, 3.0]]
    assert cluster_sums(values, None) is values


def test_clusters_of_one_item_are_no_clusters():
    items = np.random.default_rng(0).normal(0, 10, (3, 40))
    alone = item_variance(items, np.arange(40))
    for one, other in zip(alone, item_variance(items), strict=True):
        assert float(one) == pytest.approx(float(other))
    intervals = [
        mean_interval([Resampler().spread("task", scores(items, of))], 0.0)  # type: ignore[list-item]
        for of in (None, np.arange(40))
    ]
    assert intervals[1].error == pytest.approx(intervals[0].error, rel=0.02)  # 1 - 1 / 40 in the variance


def test_repeated_items_count_once():
    items = np.random.default_rng(1).normal(0, 10, (1, 30)) + np.random.default_rng(2).normal(0, 2, (4, 30))
    once, repeated = item_variance(items), item_variance(np.repeat(items, 5, axis=1), passages([5] * 30))
    assert float(repeated.items) == pytest.approx(float(once.items))
    assert float(repeated.interaction) == pytest.approx(float(once.interaction))
    assert repeated.freedom == pytest.approx(29)
    assert float(item_variance(np.repeat(items, 5, axis=1)).items) < float(once.items) / 4


@pytest.mark.parametrize("sizes", [[1] * 12, [4] * 6, [10, 5, 2, 2, 1], [1, 1, 18]])
def test_variance_of_few_unequal_clusters_is_right_on_average(sizes):
    """Items of a cluster are alike, so the mean has the variance sum(w^2) for shares w."""
    clusters, shares = passages(sizes), np.array(sizes) / sum(sizes)
    drawn = np.random.default_rng(2).normal(size=(20_000, 1, len(sizes)))
    found = item_variance(np.repeat(drawn, sizes, axis=-1), clusters)
    assert found.items.mean() == pytest.approx((shares**2).sum(), rel=0.05)
    assert found.items.var() == pytest.approx(2 * (shares**2).sum() ** 2 / found.freedom, rel=0.1)
    assert small_sample_factor(np.full(8, 1 / 8)) == pytest.approx(1 - 1 / 8)
    assert cluster_freedom(np.full(8, 1 / 8)) == pytest.approx(7)


def test_resampled_items_of_a_cluster_come_together():
    drawn = np.random.default_rng(3).normal(0, 10, (1, 40)) + np.random.default_rng(4).normal(0, 2, (3, 40))
    items = np.repeat(drawn, 5, axis=1)
    clusters = passages([5] * 40)
    spread = Resampler(20_000).spread("task", scores(items, clusters))
    assert spread.by_items.var() == pytest.approx(float(item_variance(items, clusters).items), rel=0.05)
    assert spread.over_items.value == pytest.approx(float(item_variance(items, clusters).items))
    assert spread.by_items.var() > 3 * Resampler(20_000).spread("task", scores(items, None)).by_items.var()


def test_prepared_differences_of_clusters_are_those_of_others():
    generator, clusters = np.random.default_rng(4), passages([3] * 20)
    one, other = (scores(generator.normal(size=(3, 60)), clusters) for _ in range(2))
    without = scores(generator.normal(size=(3, 60)), None)
    prepared = Resampler().prepare("task", [one, other, without])
    expected = Resampler().spread("task", one.minus(other)).by_items
    assert Resampler().spread("task", prepared[0].minus(prepared[1])).by_items == pytest.approx(expected, abs=1e-12)
    alone = Resampler().spread("task", without).by_items
    assert Resampler().spread("task", prepared[2]).by_items == pytest.approx(alone, abs=1e-12)


def test_clusters_go_with_differences_and_chosen_seeds():
    generator, clusters = np.random.default_rng(5), passages([2, 2])
    one, other = (scores(generator.normal(size=(3, 4)), clusters) for _ in range(2))
    assert one.minus(other).at((0, 2)).clusters is clusters
    with pytest.raises(ValueError, match="needs the same clusters"):
        one.minus(scores(generator.normal(size=(3, 4)), passages([1, 3])))
    with pytest.raises(ValueError, match="needs the same clusters"):
        one.minus(scores(generator.normal(size=(3, 4)), None))


def test_clusters_of_other_items_and_a_single_one_are_refused():
    items = np.zeros((2, 4))
    with pytest.raises(ValueError, match="one cluster for each of 4 items, got 3"):
        item_variance(items, np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="needs two clusters of them at least, got 1 in 4 items"):
        item_variance(items, np.zeros(4, dtype=int))


@pytest.mark.parametrize("sizes", [[6] * 20, [30, 20, 15, 10, 8, 6, 5, 4, 3, 2, *[1] * 10]])
def test_false_differences_are_at_most_nominal_only_with_clusters(sizes):
    generator, clusters = np.random.default_rng(6), passages(sizes)
    shared = np.repeat(generator.normal(0, 8, (STUDIES, 1, len(sizes))), sizes, axis=-1)
    items = shared + generator.normal(0, 4, (STUDIES, 5, sum(sizes)))
    false = {}
    for name, of in {"clusters": clusters, "items": None}.items():
        found = Difference(items.mean(axis=-1), item_variance(items, of))
        false[name] = np.mean(np.abs(found.mean) > half_width(found, 0.025))
    assert 0.005 < false["clusters"] <= 0.06
    assert false["items"] > 0.3


def test_a_verdict_uses_the_clusters_of_its_scores():
    drawn = np.random.default_rng(7).normal(0, 10, (1, 20)) + np.random.default_rng(8).normal(0, 2, (3, 20))
    items = np.repeat(drawn, 4, axis=1)
    wide, narrow = (summarise(scores(items, of)) for of in (passages([4] * 20), None))
    assert float(wide.items.items) > 3 * float(narrow.items.items)
