import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from lorta.analysis.clusters import item_variance
from lorta.analysis.equivalence import (
    Difference,
    Verdict,
    average,
    claims,
    correct,
    half_width,
    judge,
    p_greater,
    summarise,
)
from lorta.analysis.resampling import Scores
from lorta.analysis.sequential import SeedPlan
from lorta.analysis.simulation import STUDIES, World, simulate

AT_MOST = 0.06  # a rate of 0.05 is seen above this in one of 40 simulations of 2,000 studies
SEEDS_ALONE = {"by_seed": 1.0}
NOISE_ALONE = {"by_seed": 0.0, "together": 8.0, "items": 60}
ITEMS_MOSTLY = {"by_seed": 0.2, "by_item": 8.0, "items": 60}
ALL_THREE = {"by_seed": 0.5, "by_item": 4.0, "together": 4.0, "items": 60}


def of(*values: float) -> Difference:
    return Difference(np.array(values))


def paired(values: np.ndarray, items: np.ndarray | None = None) -> Scores:
    return Scores(tuple(range(len(values))), values, items)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_without_items_the_tests_are_those_of_statsmodels_and_scipy(seeds):
    first, second = np.random.default_rng(seeds).normal(80, 1, (2, seeds))
    p, lower, upper = ttost_paired(first, second, -1.5, 1.5)
    found = claims(Difference(first - second), 1.5)
    assert float(found.equivalent) == pytest.approx(p, rel=1e-9)
    assert float(p_greater(Difference(first - second), -1.5)) == pytest.approx(lower[1], rel=1e-9)
    assert float(1 - p_greater(Difference(first - second), 1.5)) == pytest.approx(upper[1], rel=1e-9)
    assert float(found.better) == pytest.approx(stats.ttest_rel(first, second, alternative="greater").pvalue, rel=1e-9)
    [answer] = judge([Difference(first - second)], [1.5])
    assert answer.p_difference == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)
    expected = stats.t.interval(0.95, seeds - 1, answer.value, stats.sem(first - second))
    assert answer.interval == pytest.approx(expected, rel=1e-9)


def test_variance_is_that_of_seeds_and_that_of_items_by_hand():
    items = np.array([[1.0, 3.0, 2.0], [5.0, 9.0, 4.0]])  # seeds 2 and 6; items 3, 6, 3
    found = summarise(paired(items.mean(axis=1), items))
    together = 2 * (0**2 + 1**2 + 1**2) / (1 * 2)  # residuals 0, 1 and -1, with either sign; 1 * 2 degrees of freedom
    assert found.between_seeds == pytest.approx(8 / 2)
    assert float(found.items.interaction) == pytest.approx(together / (2 * 3))
    assert float(found.items.items) == pytest.approx(3 / 3 - together / (2 * 3))
    expected = stats.t.ppf(0.975, 1) ** 2 * 4 + stats.t.ppf(0.975, 2) ** 2 * (1 - together / 6)
    assert float(half_width(found, 0.025)) == pytest.approx(math.sqrt(expected))


def test_seeds_that_agree_by_chance_are_not_more_exact_than_their_items():
    items = np.random.default_rng(0).normal(0, 30, (3, 400))
    items -= items.mean(axis=1, keepdims=True)
    found = summarise(paired(items.mean(axis=1), items))
    spread = item_variance(items)
    assert float(half_width(found, 0.025)) >= 1.95 * math.sqrt(spread.interaction + spread.items) > 0


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ((2.0, 2.2, 1.9, 2.1), 1.0, Verdict.BETTER),
        ((-2.0, -2.2, -1.9, -2.1), 1.0, Verdict.WORSE),
        ((0.1, -0.1, 0.05, 0.0), 1.0, Verdict.EQUIVALENT),
        ((0.4, 0.5, 0.45, 0.42), 1.0, Verdict.EQUIVALENT),  # not 0, but within the margin
        ((0.4, 0.5, 0.45, 0.42), None, Verdict.BETTER),
        ((3.0, -2.0, 0.5, 1.0), 1.0, Verdict.UNDECIDED),
        ((0.1, -0.1, 0.05, 0.0), None, Verdict.UNDECIDED),
    ],
)
def test_verdict_can_be_read_from_the_intervals(values, margin, verdict):
    [answer] = judge([of(*values)], [margin])
    assert answer.verdict == verdict
    low, high = answer.interval
    inside = margin is not None and -margin < answer.inner[0] and answer.inner[1] < margin
    assert (inside, not low < 0 < high and not inside) == (
        verdict == Verdict.EQUIVALENT,
        verdict in (Verdict.BETTER, Verdict.WORSE),
    )
    assert (answer.p_equivalence is None) == (margin is None)


def test_lower_losses_are_better():
    losses = paired(np.array([-2.0, -2.2, -1.9, -2.1]))
    [answer] = judge([summarise(losses, higher_is_better=False)], [1.0])
    assert (answer.verdict, answer.value) == (Verdict.BETTER, pytest.approx(2.05))


@pytest.mark.parametrize(("seeds", "p"), [(3, 1 / 8), (5, 1 / 32)])
def test_scores_that_never_vary_are_judged_by_the_sign_test(seeds, p):
    [answer] = judge([of(*[0.0] * seeds)], [1.0])
    assert answer.p_equivalence == p
    assert answer.p_difference == 1.0
    assert answer.verdict == (Verdict.EQUIVALENT if p <= 0.05 else Verdict.UNDECIDED)
    assert judge([of(*[0.4] * seeds)], [None])[0].p_difference == 2 * p


@pytest.mark.parametrize(("rows", "p"), [(30, 0.5), (300, 0.99**300), (1000, 1 / 32)])
def test_rows_that_two_methods_answer_alike_are_equivalent_once_they_are_many(rows, p):
    same = summarise(Scores(tuple(range(5)), np.zeros(5), np.zeros((5, rows))))
    assert claims(same, 1.0).equivalent == pytest.approx(p)
    assert (judge([same], [1.0])[0].verdict == Verdict.EQUIVALENT) == (p <= 0.05)  # type: ignore[union-attr]


def test_average_over_tasks_takes_seeds_together_and_items_apart():
    generator = np.random.default_rng(1)
    items = [generator.normal(0, 10, (4, count)) for count in (50, 80)]
    tasks = [summarise(paired(of_task.mean(axis=1), of_task)) for of_task in items]
    found = average(tasks)
    assert found.values == pytest.approx(np.mean([of_task.mean(axis=1) for of_task in items], axis=0))
    assert float(found.items.items) == pytest.approx(sum(float(task.items.items) for task in tasks) / 4)
    assert float(found.items.interaction) == pytest.approx(sum(float(task.items.interaction) for task in tasks) / 4)
    with pytest.raises(ValueError, match=r"as many seeds for each task, got \[4, 2\]"):
        average([tasks[0], of(1.0, 2.0)])


def test_one_seed_and_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="at least two seeds of both methods, got 1"):
        summarise(paired(np.array([1.0])))
    with pytest.raises(ValueError, match=r"needs finite scores, got differences of \[1.0, nan\]"):
        summarise(paired(np.array([1.0, np.nan])))


def test_items_that_are_one_cluster_say_nothing_about_other_items():
    items = np.random.default_rng(2).normal(size=(3, 5))
    scores = Scores((0, 1, 2), items.mean(axis=1), items, clusters=np.zeros(5, dtype=int))
    assert float(half_width(summarise(scores), 0.025)) == float(half_width(Difference(items.mean(axis=1)), 0.025))


@settings(max_examples=15)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_without_margins_the_correction_is_holms(values):
    corrected = correct([(value, None) for value in values])
    expected = multipletests(values, method="holm")
    assert [p for p, _ in corrected.pairs] == pytest.approx(list(expected[1]))
    rejected = [value <= corrected.level for value in values]
    assert rejected == list(expected[0])


def test_a_comparison_counts_until_both_of_its_hypotheses_are_rejected():
    corrected = correct([(0.5, 0.01), (0.02, 0.001), (0.9, 0.024)])
    assert corrected.pairs == [
        (pytest.approx(1.0), pytest.approx(0.03)),  # 3 open comparisons
        (pytest.approx(0.06), pytest.approx(0.003)),
        (pytest.approx(1.0), pytest.approx(0.06)),  # 2 are open, but never less than the step before
    ]
    assert corrected.level == pytest.approx(0.05 / 3)
    assert correct([(0.01, 0.001), (0.9, 0.024)]).level == pytest.approx(0.05)  # the first can make no false statement


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("world", [SEEDS_ALONE, NOISE_ALONE, ITEMS_MOSTLY, ALL_THREE])
def test_false_verdicts_are_at_most_nominal(world, seeds):
    plan = SeedPlan(seeds, seeds)
    assert simulate(World(0.0, **world), 0.001, plan).false <= AT_MOST  # better or worse
    for margin in (1.0, 3.0):
        assert simulate(World(margin, **world), margin, plan).false <= AT_MOST  # equivalent
        assert simulate(World(-margin, **world), margin, plan).false <= AT_MOST


def test_methods_that_differ_less_than_the_margin_are_called_so():
    assert simulate(World(0.0, 0.3), 1.0, SeedPlan(5, 5)).equivalent >= 0.98
    assert simulate(World(1.5, 0.3), 1.0, SeedPlan(5, 5)).different >= 0.98


def test_a_test_over_seeds_alone_would_be_wrong_about_other_items():
    generator = np.random.default_rng(1)
    values = generator.normal(0, 0.3, (STUDIES, 5)) + generator.normal(0, 0.5, (STUDIES, 1))
    assert np.mean(2 * np.minimum(*claims(Difference(values), None)[:2]) <= 0.05) > 0.4


def pseudo_values(score, *rows: np.ndarray) -> np.ndarray:
    """Return the jackknife pseudo-values of a score of sums over items, (..., items), as lorta.analysis.item_scores."""
    count = rows[0].shape[-1]
    sums = [row.sum(axis=-1, keepdims=True) for row in rows]
    return count * score(count, *sums) - (count - 1) * score(
        count - 1, *(total - row for total, row in zip(sums, rows, strict=True))
    )


def correlation(count: int, x, y, xx, yy, xy):
    return 100 * (count * xy - x * y) / np.sqrt((count * xx - x**2) * (count * yy - y**2))


@pytest.mark.parametrize("metric", ["pearson", "matthews"])
def test_correlations_with_pseudo_values_of_their_items_are_judged_at_most_nominally(metric):
    """Matthews' correlation is Pearson's of zeros and ones."""
    generator, seeds, count = np.random.default_rng(3), 5, 80
    labels = generator.normal(size=(STUDIES, 1, count))
    of_method = []
    for _ in range(2):
        answers = labels + generator.normal(0, 0.4, labels.shape)  # what all seeds of a method get wrong
        answers = answers + generator.normal(0, 0.4, (STUDIES, seeds, count))
        kept = [(of > 0.3).astype(float) if metric == "matthews" else of for of in (answers, labels + 0 * answers)]
        x, y = kept
        of_method.append(pseudo_values(correlation, x, y, x * x, y * y, x * y))
    differences = of_method[0] - of_method[1]
    found = Difference(differences.mean(axis=-1), item_variance(differences))
    false = np.abs(found.mean) > half_width(found, 0.025)
    assert 0.01 <= false.mean() <= AT_MOST


def test_a_study_of_six_comparisons_makes_a_false_statement_at_most_nominally_often():
    """Half of them are of equal methods, half lie on their margin."""
    generator = np.random.default_rng(4)
    truth = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    values = truth[:, None] + generator.normal(0, 0.45, (STUDIES, len(truth), 5))
    difference = Difference(values)
    better, worse, equivalent = claims(difference, 1.0)
    apart = np.minimum(1.0, 2 * np.minimum(better, worse))
    false = 0
    for study in range(STUDIES):
        level = correct(list(zip(apart[study], equivalent[study], strict=True))).level
        false += (apart[study, :3] <= level).any() or (equivalent[study, 3:] <= level).any()
    assert 0.02 <= false / STUDIES <= AT_MOST
    uncorrected = (apart[:, :3] <= 0.05).any(axis=1) | (equivalent[:, 3:] <= 0.05).any(axis=1)
    assert uncorrected.mean() > 0.2


def test_a_comparison_without_runs_counts_in_the_correction():
    alone = judge([of(0.9, 1.0, 1.1)], [None])[0]
    first, second = judge([of(0.9, 1.0, 1.1), None], [None, 1.0])
    assert second is None
    assert first.p_difference == pytest.approx(2 * alone.p_difference)
