import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from lorta.analysis.significance import AVERAGE, Analysis, analyse, holm, mcnemar_p
from lorta.records.record import RunRecord
from lorta.reporting.tables import interval_grid, to_markdown
from tests.example_records import finished, sweep, the_table, with_section

ROWS = 277


def answered(adapter: str, seed: int, right: float, task: str = "rte") -> tuple[RunRecord, tuple[float, ...]]:
    """Return a run and the items that it got right, some of them whatever the adapter."""
    generator = np.random.default_rng([seed, len(adapter)])
    difficulty = np.random.default_rng(99).random(ROWS)
    items = tuple(((difficulty + generator.normal(0, 0.1, ROWS)) < right).astype(float))
    return finished(adapter, task, sum(items) / ROWS, seed), items


def analysed(rates: dict[str, float], seeds: int) -> tuple[Analysis, list[str]]:
    pairs = [answered(adapter, seed, right) for adapter, right in rates.items() for seed in range(seeds)]
    table = the_table([record for record, _ in pairs])
    return analyse(table, {record.run_id: items for record, items in pairs}), [row.adapter for row in table.rows]


def losing(losses: dict[str, float]) -> list[RunRecord]:
    """Return three seeds of each adapter, whose task counts losses."""
    return [
        with_section(
            finished(adapter, value=value * (1 + (seed - 1) / 1000), seed=seed), "task", higher_is_better=False
        )
        for adapter, value in losses.items()
        for seed in range(3)
    ]


def bold(analysis: Analysis, adapters: list[str], column: str = "glue/rte") -> set[str]:
    return {adapters[row] for row, of in analysis.ties if of == column}


@settings(max_examples=15)  # multipletests collects garbage at every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(values):
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))  # pyright: ignore


def test_holm_of_nothing_is_nothing():
    assert holm([]) == []


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_statsmodels(answers):
    first, second = (np.array(side) for side in zip(*answers, strict=True))
    counts = [[np.sum((first == one) & (second == other)) for other in (True, False)] for one in (True, False)]
    expected = mcnemar(counts, exact=True).pvalue if (first != second).any() else 1.0  # pyright: ignore
    assert mcnemar_p(first, second) == pytest.approx(min(1.0, expected))


def test_methods_apart_are_not_ties_and_like_ones_are():
    analysis, adapters = analysed({"good": 0.86, "alike": 0.86, "bad": 0.6}, seeds=3)
    assert bold(analysis, adapters) == {"good", "alike"}


def test_one_seed_is_compared_by_items():
    analysis, adapters = analysed({"good": 0.86, "alike": 0.86, "bad": 0.6}, seeds=1)
    assert bold(analysis, adapters) == {"good", "alike"}
    (against_bad,) = [found for found in analysis.comparisons if adapters[found.row] == "bad"]
    assert against_bad.mcnemar[0] < 1e-6
    assert against_bad.interval.high < 0


def test_one_seed_without_items_ties_nothing():
    table = the_table([finished(), finished("vera")])
    analysis = analyse(table, {})
    assert (analysis.ties, analysis.intervals, analysis.comparisons) == (frozenset(), {}, ())
    assert "None: there is only one seed, and no row scores are stored." in to_markdown([table], [], [analysis])


def test_items_add_the_choice_of_rows_to_that_of_seeds():
    pairs = [answered(adapter, seed, right) for adapter, right in {"a": 0.86, "bb": 0.7}.items() for seed in range(2)]
    table = the_table([record for record, _ in pairs])
    items = {record.run_id: found for record, found in pairs}
    with_items, without = (analyse(table, known).comparisons[0].interval for known in (items, {}))
    assert with_items.error > without.error
    assert (len(with_items.parts), len(without.parts)) == (2, 1)
    assert analyse(table, items).with_items == (0, 1)
    assert analyse(table, {}).with_items == ()


def test_report_names_the_rows_whose_items_are_not_kept():
    pairs = [answered(adapter, seed, 0.8) for adapter in ("a", "bb") for seed in range(2)]
    table = the_table([record for record, _ in pairs])
    known = {record.run_id: found for record, found in pairs}
    some = {run: found for run, found in known.items() if run in {record.run_id for record, _ in pairs[:2]}}
    for items, words in (
        (known, "resamples of seeds and scored rows, and"),
        (some, "of seeds and scored rows (seeds only for bb r=4: no row scores are stored), and"),
        ({}, "resamples of seeds (only: no row scores are stored), and"),
    ):
        assert words in to_markdown([table], [], [analyse(table, items)])


def test_lower_is_better_where_the_task_says_so():
    table = the_table(losing({"good": 0.2, "bad": 0.5}))
    assert bold(analyse(table, {}), [row.adapter for row in table.rows]) == {"good"}


def test_losses_keep_their_unit():
    records = losing({"good": 0.2, "bad": 0.5})
    table = the_table(records)
    analysis = analyse(table, {run.run_id: (run.primary_score.value,) * 5 for run in records})  # pyright: ignore
    (worse,) = analysis.comparisons
    assert worse.interval.value == pytest.approx(0.3)
    assert analysis.with_items == (0, 1)
    assert "0.2000 [" in to_markdown([table], [], [analysis])


def test_average_and_interquartile_mean_need_all_tasks():
    table = the_table([*sweep(), finished("vera", "rte"), finished("vera", "rte", seed=1)])
    analysis = analyse(table, {})
    vera = [row.adapter for row in table.rows].index("vera")
    assert (vera, AVERAGE) not in analysis.intervals
    assert vera not in analysis.middle
    assert all((row, AVERAGE) in analysis.intervals for row in range(len(table.rows)) if row != vera)


def test_seeds_that_two_methods_share_are_compared():
    records = [finished(seed=seed, value=0.8 + seed / 100) for seed in range(4)]
    records += [finished("vera", seed=seed, value=0.5 + seed / 100) for seed in (2, 3, 7)]
    (found,) = analyse(the_table(records), {}).comparisons
    assert found.interval.value == pytest.approx(-30.0)


def test_markdown_prints_ties_bold():
    table = the_table([finished(adapter, seed=seed, value=0.8 + seed / 100) for adapter in "ab" for seed in range(3)])
    analysis = analyse(table, {})
    assert "**81.0 ± 1.0**" in to_markdown([table], [], [analysis])
    assert interval_grid(table, analysis).header[-1] == "score vs. best"
