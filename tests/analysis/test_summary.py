from dataclasses import replace

import pytest

from lorta.analysis.summary import Row, summarise
from lorta.records.record import RunRecord, Split
from lorta.records.sections import Spread
from lorta.reporting.captions import caption, title
from lorta.reporting.tables import to_markdown
from tests.example_records import finished, sweep, the_table, with_section


def the_row(records: list[RunRecord]) -> Row:
    (row,) = the_table(records).rows
    return row


def test_cell_is_the_mean_and_sample_deviation_over_seeds_in_points():
    cell = the_row([finished(value=value, seed=seed) for seed, value in enumerate((0.8, 0.9, 0.7))]).cells["glue/rte"]
    assert (cell.mean, cell.std) == (pytest.approx(80.0), pytest.approx(10.0))
    assert (cell.values, cell.seeds) == (pytest.approx((80.0, 90.0, 70.0)), (0, 1, 2))


def test_one_seed_has_no_deviation():
    assert the_row([finished()]).cells["glue/rte"].std is None
    assert "without a standard deviation: only seed 0" in to_markdown(summarise([finished()]), [])


def test_average_takes_the_deviation_of_the_averages_of_each_seed():
    scores = {("rte", 0): 0.8, ("rte", 1): 0.6, ("cola", 0): 0.6, ("cola", 1): 0.8}
    row = the_row([finished(task=task, value=value, seed=seed) for (task, seed), value in scores.items()])
    assert (row.average.mean, row.average.std) == (pytest.approx(70.0), pytest.approx(0.0))


def test_average_is_left_out_where_a_task_is_missing():
    table = the_table([finished(task="rte"), finished(task="cola"), finished("lorta", "rte")])
    lora, lorta = table.rows
    assert lora.average.mean == pytest.approx(80.0)
    assert (lorta.average.mean, lorta.average.note) == (None, "no value for cola")
    assert "- [1] lorta r=4, cola: no finished run" in to_markdown([table], [])


def test_average_over_unequal_seeds_has_no_deviation_and_says_so():
    records = [finished(task="rte", seed=seed) for seed in range(2)] + [finished(task="cola")]
    average = the_row(records).average
    assert (average.mean, average.std) == (pytest.approx(80.0), None)
    assert "seeds differ" in (average.note or "")
    assert "80.0 (n=1)" in to_markdown(summarise(records), records)


def test_one_undefined_score_leaves_the_mean_out_and_gives_the_reason():
    cell = the_row([finished(value=0.8), finished(value=None, seed=1)]).cells["glue/rte"]
    assert cell.mean is None
    assert cell.note == "no accuracy for seed 1: all predictions are equal"


def test_an_undefined_correlation_of_a_constant_answer_counts_as_zero():
    spread = Spread(predictions_std=0.0, labels_std=1.5, predicted_classes=None, label_classes=None, collapsed=True)
    records = [finished(task="stsb", value=0.8), replace(finished(task="stsb", value=None, seed=1), spread=spread)]
    assert the_row(records).cells["glue/stsb"].values == (80.0, 0.0)
    assert "1 of 2 runs collapsed to (nearly) one answer (an undefined correlation counts as 0)" in to_markdown(
        summarise(records), records
    )


def test_parameters_of_adapter_head_and_the_rest_stand_apart():
    row = the_row([finished(task="rte"), finished(task="stsb")])
    assert (row.adapter_parameters, row.head_parameters, row.other_parameters) == ((1000, 1000), (100, 200), (0, 0))
    assert "| 1,000 | 100 to 200 | 0 |" in to_markdown(summarise([finished(task="rte"), finished(task="stsb")]), [])


def test_rows_are_ordered_by_method_size_then_rank():
    labels = [row.label for row in the_table(sweep()).rows]
    assert labels == ["head_only", "lorta r=4", "lorta r=8", "lora r=4", "lora r=8"]


@pytest.mark.parametrize(
    "other",
    [
        with_section(finished("vera"), "model", id="another"),
        with_section(finished("vera"), "task", source="local"),
        with_section(finished("vera"), "task", protocol=2),
        with_section(finished("vera"), "task", max_train_samples=100),
        with_section(finished("vera"), "task", max_eval_samples=100),
        with_section(finished("vera"), "protocol", selection="best"),
        with_section(finished("vera"), "protocol", epochs=5.0),
        with_section(finished("vera"), "protocol", max_steps=50),
    ],
)
def test_runs_that_cannot_be_compared_go_into_tables_of_their_own(other):
    tables = summarise([finished(), other])
    assert [[row.adapter for row in table.rows] for table in tables] in ([["lora"], ["vera"]], [["vera"], ["lora"]])


def test_runs_that_took_their_rows_in_another_order_are_no_part_of_a_table():
    def ordered(name: str, **trainer: bool) -> RunRecord:
        record = finished(name)
        return replace(record, config={**record.config, "trainer": trainer})

    records = [
        ordered("lora", group_by_length=True, shuffle_groups=True),
        ordered("vera", group_by_length=True),  # as of before, when there was no other order
        ordered("lorta", group_by_length=False),
    ]
    titles = {table.rows[0].adapter: (title(table), caption(table)) for table in summarise(records)}
    assert len(titles) == 3
    assert "from long rows to short" in titles["vera"][0] and "from long" not in titles["lora"][0] + titles["lorta"][0]
    expected = {
        "lora": "steps of rows alike in length, in random order.",
        "vera": "steps of rows alike in length, each 50 of them from long rows to short ones.",
        "lorta": "rows in random order.",
    }
    for name, (_, notes) in titles.items():
        assert any(note.startswith("Training: ") and note.endswith(expected[name]) for note in notes)


def test_tasks_may_be_trained_for_different_lengths():
    longer = with_section(finished(task="cola"), "protocol", epochs=10.0)
    table = the_table([finished(task="rte"), longer])
    assert "Training: cola 10 epochs, rte 3 epochs." in caption(table)


def test_scores_on_different_rows_are_refused():
    other = finished("vera")
    splits = {**finished().task.splits, "validation": Split(rows=277, fingerprint="other")}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="records of glue/rte come from different data"):
        summarise([finished(), with_section(other, "task", splits=splits)])


def test_training_rows_may_differ_between_seeds_but_not_within_one():
    splits = {**finished().task.splits, "train": Split(rows=2000, fingerprint="other")}  # type: ignore[union-attr]
    assert summarise([finished(), with_section(finished(seed=1), "task", splits=splits)])
    with pytest.raises(ValueError, match="come from different data"):
        summarise([finished(), with_section(finished("vera"), "task", splits=splits)])


def test_cells_that_differ_in_a_setting_are_rows_named_by_it():
    records = [
        finished(value=rate, seed=seed, learning_rate=rate, epochs=3) for rate in (0.1, 0.2) for seed in range(2)
    ]
    rows = the_table(records).rows
    assert [(row.label, row.cells["glue/rte"].mean) for row in rows] == [
        ("lora r=4 (learning_rate=0.1)", pytest.approx(10.0)),
        ("lora r=4 (learning_rate=0.2)", pytest.approx(20.0)),
    ]


def test_seed_inside_the_configuration_tells_no_rows_apart():
    def run(seed: int, rate: float) -> RunRecord:
        record = finished(seed=seed, rate=rate)
        return replace(record, config=record.config | {"seed": seed})

    labels = [row.label for row in the_table([run(0, 0.1), run(1, 0.1), run(2, 0.2)]).rows]
    assert labels == ["lora r=4 (rate=0.1)", "lora r=4 (rate=0.2)"]


def test_settings_may_differ_between_tasks_of_one_row():
    assert the_row([finished(task="rte", rate=0.1), finished(task="cola", rate=0.2)]).label == "lora r=4"


def test_two_runs_of_one_seed_are_refused():
    with pytest.raises(ValueError, match="keep one run per seed"):
        summarise([finished(), replace(finished(), run_id="0" * 12)])


def test_success_without_its_primary_score_is_refused():
    with pytest.raises(ValueError, match="has no accuracy, its primary metric"):
        summarise([replace(finished(), metrics={})])
