import math

import numpy as np
import pytest
from scipy import stats

from lorta.analysis.clusters import ItemVariance
from lorta.analysis.equivalence import Difference, Verdict, judge
from lorta.analysis.resampling import Scores
from lorta.analysis.sequential import SeedPlan, chance, decide, looks
from lorta.analysis.simulation import STUDIES, World, draw, judge_at_once, simulate

PLAN = SeedPlan(3, 10)
AT_MOST = 0.06  # a rate of 0.05 is seen above this in one of 40 simulations of 2,000 studies
WORLDS = {
    "seeds": {"by_seed": 1.0},
    "noise": {"by_seed": 0.0, "together": 8.0, "items": 60},
    "items": {"by_seed": 0.2, "by_item": 8.0, "items": 60},
    "all": {"by_seed": 0.5, "by_item": 4.0, "together": 4.0, "items": 60},
}


def seen(values: list[float], plan: SeedPlan = PLAN, items: float = 0.0) -> list[Difference]:
    variance = ItemVariance(np.array(items), np.array(0.0), 1000.0, 1000.0)
    return [Difference(np.array(values[:count]), variance) for count in plan.looks if count <= len(values)]


@pytest.mark.parametrize("plan", [PLAN, SeedPlan(2, 5)])
@pytest.mark.parametrize("world", WORLDS)
def test_false_verdicts_are_at_most_nominal_after_all_looks(plan, world):
    assert simulate(World(0.0, **WORLDS[world]), 0.001, plan).false <= AT_MOST  # better or worse
    for margin in (1.0, 3.0):
        assert simulate(World(margin, **WORLDS[world]), margin, plan).false <= AT_MOST  # equivalent
        assert simulate(World(-margin, **WORLDS[world]), margin, plan).false <= AT_MOST


def test_looking_after_each_seed_without_the_boundary_would_not_be():
    values, _ = draw(World(0.0, 1.0), 10, np.random.default_rng(1))
    p = [stats.ttest_1samp(values[:, :count], 0, axis=1).pvalue for count in PLAN.looks]
    assert np.mean(np.min(p, axis=0) <= 0.05) == pytest.approx(0.166, abs=0.01)


def test_nothing_is_wasted_where_only_seeds_vary():
    assert simulate(World(0.0, 1.0), 0.001, PLAN).false >= 0.035


@pytest.mark.parametrize(
    ("difference", "deviation", "seeds", "decided"),
    [(0.0, 0.3, 5.2, 0.98), (2.0, 0.6, 4.8, 0.99), (5.0, 1.0, 4.2, 0.99)],
)
def test_clear_cases_need_few_seeds(difference, deviation, seeds, decided):
    """All ten seeds would decide as many of these studies, but for 2 in 100."""
    found = simulate(World(difference, deviation), 1.0, PLAN)
    fixed = simulate(World(difference, deviation), 1.0, SeedPlan(10, 10))
    assert found.seeds <= seeds
    assert found.decided >= max(decided, fixed.decided - 0.02)


def test_studies_that_are_judged_at_once_end_as_those_judged_one_by_one():
    values, _ = draw(World(0.6, 0.6), 10, np.random.default_rng(2), studies=40)
    equivalent, different, taken = judge_at_once(values, None, 1.0, PLAN)
    for number, of in enumerate(values):
        [decision] = decide([seen(list(of))], [1.0], PLAN)
        verdict = decision.answer.verdict  # type: ignore[union-attr]
        assert (verdict == Verdict.EQUIVALENT) == equivalent[number]
        assert (verdict in (Verdict.BETTER, Verdict.WORSE)) == different[number]
        assert decision.seeds == taken[number]
    assert 0 < equivalent.sum() < 40 and different.sum() > 0


def test_steps_of_several_seeds_run_hardly_more_seeds_than_one_at_a_time_in_fewer_rounds():
    values, _ = draw(World(1.5, 1.2), 10, np.random.default_rng(1), studies=20)
    _, _, taken = judge_at_once(values, None, 1.0, PLAN)
    run, rounds = [], []
    for of in values:
        seeds, steps = PLAN.least, 1
        while not (decision := decide([seen(list(of[:seeds]))], [1.0], PLAN)[0]).done:
            seeds, steps = decision.seeds, steps + 1
        run.append(seeds)
        rounds.append(steps)
    assert np.mean(run) <= np.mean(taken) + 0.25
    assert np.mean(rounds) <= 0.9 * np.mean(taken - PLAN.least + 1)


def test_a_single_look_is_a_fixed_number_of_seeds():
    values = [0.9, 1.4, 0.8, 1.1]
    [decision] = decide([seen(values, SeedPlan(4, 4))], [1.0], SeedPlan(4, 4))
    assert decision.answer == judge([Difference(np.array(values))], [1.0])[0]
    assert (decision.done, decision.reason) == (True, "decided with 4 seeds.")


def test_chance_of_the_smallest_quotient_is_that_of_other_simulated_studies():
    values = np.random.default_rng(7).normal(size=(20_000, 10))
    p = [stats.ttest_1samp(values[:, :count], 0, axis=1, alternative="greater").pvalue for count in PLAN.looks]
    smallest = np.min([of / (count / 10) for of, count in zip(p, PLAN.looks, strict=True)], axis=0)
    for level in (0.05, 0.025, 0.005):
        expected = 3 * math.sqrt(level / len(values))
        assert np.mean(smallest <= chance(PLAN).quotient(level)) == pytest.approx(level, abs=expected)


def test_chance_grows_with_the_quotient_and_never_falls_below_what_simulation_can_show():
    known = chance(PLAN)
    quotients = np.geomspace(1e-8, 1, 200)
    chances = [known.p_value(quotient) for quotient in quotients]
    assert chances == sorted(chances)
    assert known.p_value(1e-6) == pytest.approx(1e-6 * sum(seeds / 10 for seeds in range(3, 11)))
    for level in (0.05, 0.01, 1e-3, 1e-5):
        assert known.p_value(known.quotient(level)) == pytest.approx(level, rel=1e-9)


def test_a_clear_difference_is_decided_at_the_first_look():
    [decision] = decide([seen([3.0, 3.1, 2.9])], [1.0], PLAN)
    assert decision.answer.verdict == Verdict.BETTER  # type: ignore[union-attr]
    assert (decision.done, decision.seeds) == (True, 3)


def test_what_is_decided_stays_decided_with_more_seeds():
    early = [3.0, 3.1, 2.9]
    [decision] = decide([seen([*early, -9.0, 9.0])], [1.0], PLAN)
    assert decision.answer.verdict == Verdict.BETTER  # type: ignore[union-attr]
    assert decision.answer.seeds == decision.seeds == 3  # type: ignore[union-attr]
    assert decision.answer.value == pytest.approx(3.0)  # type: ignore[union-attr]


def test_an_open_comparison_goes_half_the_way_that_today_s_estimate_needs():
    [decision] = decide([seen([0.6, -0.5, 0.3])], [1.0], PLAN)
    assert not decision.done
    assert 4 <= decision.seeds < 10
    assert "undecided with 3 seeds; with today's estimate and spread" in decision.reason
    assert "seeds would decide" in decision.reason
    [unlikely] = decide([seen([9.0, -8.0, 0.3])], [1.0], PLAN)
    assert (unlikely.done, unlikely.seeds) == (False, 6)
    assert "10 seeds would not decide" in unlikely.reason


def test_before_the_least_number_of_seeds_there_is_no_answer():
    [decision] = decide([seen([0.1, 0.2])], [1.0], PLAN)
    assert (decision.answer, decision.done, decision.seeds) == (None, False, 3)
    assert decision.reason == "fewer than 3 seeds so far."


def test_after_the_most_seeds_a_comparison_stays_undecided():
    values = [9.0, -8.0, 3.0, -2.0, 5.0, -6.0, 1.0, 0.5, -4.0, 2.0, 7.0]
    [decision] = decide([seen(values)], [1.0], PLAN)
    assert decision.answer.verdict == Verdict.UNDECIDED  # type: ignore[union-attr]
    assert (decision.done, decision.seeds) == (True, 10)
    assert decision.reason == "undecided with the most seeds, 10."


def test_seeds_are_not_spent_where_the_items_forbid_an_answer():
    values = [0.3, 0.1, 0.2]
    [decision] = decide([seen(values, items=1.5)], [1.0], PLAN)
    assert decision.done
    assert "more seeds cannot help" in decision.reason
    assert not decide([seen([0.6, -0.4, 0.3], items=0.05)], [1.0], PLAN)[0].done
    assert not decide([seen([4.0, 6.0, 5.5], items=1.5**2)], [1.0], PLAN)[0].done  # a difference may still show


def test_more_comparisons_need_clearer_differences():
    clear, unclear = seen([1.0, 1.08, 0.95]), seen([9.0, -8.0, 0.3])
    alone = decide([clear], [None], PLAN)[0]
    among = decide([clear, *[unclear] * 9], [None] * 10, PLAN)[0]
    assert (alone.done, among.done) == (True, False)
    assert among.answer.level == pytest.approx(0.005)  # type: ignore[union-attr]
    assert among.answer.p_difference == pytest.approx(10 * alone.answer.p_difference)  # type: ignore[union-attr]


def test_looks_take_seeds_in_their_order_and_average_tasks():
    generator = np.random.default_rng(3)
    items = [generator.normal(0, 10, (5, count)) for count in (30, 40)]
    tasks = [Scores((0, 1, 2, 5, 9), of.mean(axis=1), of) for of in items]
    found = looks(tasks, PLAN)
    assert [of.seeds for of in found] == [3, 4, 5]
    assert found[0].values == pytest.approx(np.mean([of.mean(axis=1)[:3] for of in items], axis=0))
    assert looks(tasks, PLAN, higher_is_better=False)[0].values == pytest.approx(-found[0].values)
    assert looks([Scores((0,), np.array([1.0]))], PLAN) == []


@pytest.mark.parametrize(
    ("least", "most", "message"),
    [
        (5, 3, r"the least number of seeds \(5\) is above the most \(3\)"),
        (1, 5, "seeds must lie between 2 and 100, got 1 to 5"),
        (3, 101, "seeds must lie between 2 and 100, got 3 to 101"),
        (3.0, 5, r"the least number of seeds must be a whole number, got 3\.0"),
        (3, "auto", "the most number of seeds must be a whole number, got 'auto'"),
        (True, 5, "the least number of seeds must be a whole number, got True"),
    ],
)
def test_plans_that_cannot_be_are_refused(least, most, message):
    with pytest.raises(ValueError, match=message):
        SeedPlan(least, most)


def test_a_study_of_several_comparisons_makes_a_false_statement_at_most_nominally_often():
    """Four comparisons, two of equal methods, two on their margin, stop each on its own at a quarter of the level."""
    false = np.zeros(STUDIES, bool)
    for number, truth in enumerate((0.0, 0.0, 1.0, 1.0)):
        values, _ = draw(World(truth, 0.4), 10, np.random.default_rng(10 + number))
        equivalent, different, _ = judge_at_once(values, None, 1.0, PLAN, level=0.05 / 4)
        false |= equivalent if truth else different
    assert 0.005 <= false.mean() <= AT_MOST
