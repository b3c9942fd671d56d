from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lorta.analysis.published import Line, Row, Table, filled_in
from lorta.analysis.verdicts import Evidence, judge
from lorta.records.record import RunRecord
from tests.example_records import finished, with_section

TABLE: dict[str, Any] = {
    "title": "GLUE",
    "model": "roberta_base",
    "split": "validation",
    "seeds": 5,
    "statistic": "mean",
    "spread": "std",
    "selection": "last",
    "counted": ["adapter"],
    "source": "s",
    "confidence": "verified",
    "columns": {"rte": {"task": "glue/rte", "metric": "accuracy"}},
}
ROW: dict[str, Any] = {
    "method": "LoRA",
    "adapter": "lora",
    "rank": 4,
    "parameters": 1000,
    "scores": {"rte": [80.0, 0.2]},
}


def line(row: dict[str, Any] | None = None, **table: Any) -> Line:
    found = Table.model_validate({**TABLE, **table, "rows": []})
    return Line(filled_in(Row.model_validate({**ROW, **(row or {})}), found), found, "own.one")


def run(value: float | None = 0.8, seed: int = 0, **options: Any) -> RunRecord:
    """Return a run that stands beside the published number: RoBERTa-base, real data."""
    record = with_section(finished(value=value, seed=seed, **options), "model", name="roberta_base")
    return with_section(record, "task", source="local")


def runs(*values: float) -> list[RunRecord]:
    return [run(value / 100, seed) for seed, value in enumerate(values)]


def verdict(records: list[RunRecord], row: dict[str, Any] | None = None, **table: Any) -> tuple[str, str]:
    found = judge(line(row, **table), "rte", Evidence.of(records, {}))
    return found.kind, found.reason


def test_like_numbers_within_the_margin_are_reproduced():
    assert verdict(runs(80.1, 79.9, 80.2, 80.0, 79.8)) == ("reproduced", "")


def test_numbers_apart_differ():
    assert verdict(runs(75.1, 74.9, 75.2, 75.0, 74.8)) == ("differs", "")


def test_a_small_sure_difference_within_the_margin_is_reproduced():
    assert verdict(runs(80.5, 80.5, 80.6, 80.5, 80.5))[0] == "reproduced"


def test_what_neither_shows_nor_excludes_a_difference_is_undecided_and_names_no_number_of_seeds():
    kind, reason = verdict(runs(78.0, 82.0, 80.0))
    assert kind == "undecided"
    assert "more seeds" not in reason  # looking again after some more seeds would need another test


def test_a_published_rank_that_is_not_known_finds_runs_of_any_rank_and_judges_none():
    kind, reason = verdict(runs(80.0, 80.1), {"rank": None})
    assert (kind, reason) == ("not comparable", "the rank is 4, published unknown")


def test_one_seed_is_undecided():
    assert verdict(runs(80.0)) == ("undecided", "only one seed was run, so the variance between seeds is not known")


def test_difference_has_the_interval_of_welch():
    values = [79.0, 81.5, 80.5, 82.0]
    found = judge(
        line({"scores": {"rte": [80.0, 1.5]}}, columns={"rte": {**TABLE["columns"]["rte"], "decimals": 6}}),
        "rte",
        Evidence.of(runs(*values), {}),
    )
    expected = stats.ttest_ind_from_stats(np.mean(values), np.std(values, ddof=1), 4, 80.0, 1.5, 5, equal_var=False)
    degrees = (np.var(values, ddof=1) / 4 + 1.5**2 / 5) ** 2 / (
        (np.var(values, ddof=1) / 4) ** 2 / 3 + (1.5**2 / 5) ** 2 / 4
    )
    half = stats.t.ppf(0.975, degrees) * (np.mean(values) - 80.0) / expected.statistic
    assert (found.difference.low, found.difference.high) == pytest.approx((0.75 - half, 0.75 + half), abs=1e-6)


def test_a_median_is_compared_with_a_median_and_is_less_sure():
    values = (79.9, 80.0, 80.1, 80.0, 83.0)
    mean, median = (judge(line(statistic=name), "rte", Evidence.of(runs(*values), {})) for name in ("mean", "median"))
    assert (mean.difference.value, median.difference.value) == pytest.approx((0.6, 0.0))
    assert median.difference.error > mean.difference.error


def test_published_number_without_a_spread_is_taken_as_exact_and_that_is_said():
    assert verdict(runs(80.1, 79.9, 80.0), {"scores": {"rte": 80.0}}) == (
        "reproduced",
        "the published standard deviation is unknown, so the number is taken as exact",
    )


@pytest.mark.parametrize(
    ("record", "row", "table", "reason"),
    [
        (with_section(run(), "model", name="minilm"), {}, {}, "the model is minilm, published roberta_base"),
        (with_section(run(), "task", source="embedded"), {}, {}, "the data is the embedded language"),
        (with_section(run(), "task", max_train_samples=100), {}, {}, "not all rows were used"),
        (with_section(run(), "task", max_eval_samples=100), {}, {}, "not all rows were used"),
        (run(), {}, {"split": "test"}, "the split is validation, published test"),
        (run(), {}, {"split": None}, "the split is validation, published unknown"),
        (run(), {}, {"selection": "best"}, "the last epoch is scored, published best"),
        (run(), {}, {"selection": "unknown"}, "the last epoch is scored, published unknown"),
        (run(), {"parameters": 1200}, {}, "1,000 parameters (adapter), published 1200"),
        (run(), {"parameters": "2k"}, {}, "1,000 parameters (adapter), published 2k"),
        (run(), {}, {"counted": ["adapter", "head"]}, "1,200 parameters (adapter + head), published 1000"),
        (run(), {}, {"counted": None}, "it is unknown which parameters the published count includes"),
        (run(), {"parameters": None}, {}, "it is unknown which parameters the published count includes"),
        (run(), {"not_comparable": {"rte": "it starts from MNLI"}}, {}, "it starts from MNLI"),
        (run(), {"not_comparable": {"all": "another split"}}, {}, "another split"),
        (run(None), {}, {}, "the metric of a run has no value"),
    ],
)
def test_what_forbids_a_comparison_is_named(record, row, table, reason):
    assert verdict([record], row, **table) == ("not comparable", reason)


def test_score_of_another_model_is_not_shown():
    other = with_section(run(), "model", name="minilm")
    assert judge(line(), "rte", Evidence.of([other], {})).measured is None


@pytest.mark.parametrize(
    "records", [[], [run(adapter="vera")], [run(rank=8)], [run(task="sst2")]], ids=["none", "adapter", "rank", "task"]
)
def test_other_cells_are_no_run_of_it(records):
    assert verdict(records)[0] == "not run"


def test_another_metric_of_the_task_is_no_run_of_it():
    columns = {"rte": {"task": "glue/rte", "metric": "f1"}}
    assert verdict([run()], columns=columns)[0] == "not run"
    scores = {
        "validation": {**run().metrics["validation"], "f1": replace(run().metrics["validation"]["accuracy"], value=0.7)}
    }
    found = judge(line(columns=columns), "rte", Evidence.of([replace(run(), metrics=scores)], {}))
    assert found.measured.value == pytest.approx(70.0)


def test_methods_and_tasks_that_are_not_here_are_said_to_be():
    assert verdict([run()], {"adapter": None}) == ("not run", "this project has no such method")
    columns = {"rte": {"task": None, "metric": None}}
    assert verdict([run()], columns=columns) == ("not run", "this project has no such task or metric")


def test_unpublished_cell_shows_what_was_measured():
    found = judge(line({"scores": {}}), "rte", Evidence.of(runs(80.0, 81.0), {}))
    assert (found.kind, found.measured.value) == ("no published value", pytest.approx(80.5))


def test_comparable_runs_are_preferred_to_others():
    capped = [with_section(run(0.1, seed, rows=100), "task", max_train_samples=100) for seed in range(9)]
    assert verdict([*capped, *runs(80.1, 79.9, 80.0)])[0] == "reproduced"


def test_two_comparable_settings_are_not_chosen_from():
    other = [run(0.9, seed, learning_rate=0.1) for seed in range(2)]
    assert verdict([*runs(80.1, 79.9, 80.0), *other])[1] == "several settings of it were run; choose one with --records"


def test_units_other_than_points_are_taken_as_they_are():
    columns = {"rte": {"task": "glue/rte", "metric": "accuracy", "unit": "nats", "decimals": 3, "margin": 0.01}}
    found = judge(line({"scores": {"rte": 0.8}}, columns=columns), "rte", Evidence.of(runs(80.0, 80.0), {}))
    assert (found.kind, found.measured.value) == ("reproduced", pytest.approx(0.8))


def test_shown_interval_covers_rows_where_they_are_known():
    records = runs(80.0, 80.0)
    items = {record.run_id: tuple([1.0] * 8 + [0.0] * 2) for record in records}
    with_items, without = (judge(line(), "rte", Evidence.of(records, known)).measured.interval for known in (items, {}))
    assert (without.error, with_items.error) == (0.0, pytest.approx(12.0, rel=0.1))
