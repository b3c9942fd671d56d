from dataclasses import replace
from typing import Any

import pytest

from lorta.analysis.losses import History
from lorta.analysis.significance import analyse
from lorta.analysis.summary import Table
from lorta.records.record import Memory, RunRecord, Storage
from lorta.reporting.plots.panels import (
    Curve,
    Panel,
    Point,
    cost_panels,
    rank_panels,
    rate_panels,
    score_panels,
    training_panels,
)
from lorta.reporting.ranges import within_range
from lorta.reporting.report import write_report
from tests.example_records import finished, sweep, the_table, with_section


def sized(value: float, parameters: int, seed: int = 0, **options: Any) -> RunRecord:
    """Return a run of an adapter that is named after its size."""
    return finished(f"m{parameters}", value=value, parameters=parameters, seed=seed, **options)


def panel_of(records: list[RunRecord]) -> Panel:
    table = the_table(records)
    return score_panels(table, analyse(table, {}))[0]


def losing(records: list[RunRecord]) -> list[RunRecord]:
    return [with_section(record, "task", higher_is_better=False) for record in records]


SIZES = [(0.5, 100), (0.4, 200), (0.7, 300), (0.7, 400), (0.9, 500)]


def test_front_is_what_nothing_beats_in_score_and_size():
    panel = panel_of([sized(value, size) for value, size in SIZES])
    assert [point.x for point in panel.front] == [100, 300, 500]


def test_tasks_that_no_method_has_all_of_have_no_panel_of_their_average(tmp_path):
    """A table and a page ended with "min() arg is an empty sequence"."""
    records = [sized(0.5, 100, seed=seed, task=task) for seed in (0, 1) for task in ("rte",)]
    records += [sized(0.6, 200, seed=seed, task="sst2") for seed in (0, 1)]
    table = the_table(records)
    assert [len(panel.curves) for panel in score_panels(table, analyse(table, {}))] == [1, 1]
    write_report(records, "gaps", tmp_path)
    assert (tmp_path / "figures" / "gaps.png").is_file()
    assert Panel("", "", "", ()).y_range is None


def test_front_of_losses_is_lowest():
    panel = panel_of(losing([sized(value, size) for value, size in SIZES]))
    assert [point.x for point in panel.front] == [100, 200]


def test_a_method_without_parameters_goes_across_and_is_on_no_front():
    panel = panel_of([sized(0.99, 0), sized(0.8, 100), sized(0.9, 200)])
    assert [(curve.method, curve.across) for curve in panel.curves] == [("m100", False), ("m200", False), ("m0", True)]
    assert [point.x for point in panel.front] == [100, 200]


def test_bars_are_the_intervals_of_the_analysis():
    records = [sized(0.8 + seed / 100, 100, seed) for seed in range(3)]
    table = the_table(records)
    analysis = analyse(table, {})
    (curve,) = score_panels(table, analysis)[0].curves
    shown = within_range(analysis.intervals[0, "glue/rte"], table, "glue/rte")
    assert curve.points[0][2:4] == (shown.low, shown.high)
    assert panel_of([sized(0.8, 100)]).curves[0].points[0][2:4] == (None, None)


def test_average_comes_first_and_then_every_task():
    table = the_table(sweep())
    titles = [panel.title for panel in score_panels(table, analyse(table, {}))]
    assert titles == ["average", "RTE (accuracy)", "STS-B (Pearson correlation)"]


def test_costs_are_drawn_of_the_columns_that_are_named():
    table = the_table(sweep())
    for names in (["average"], ["glue/stsb", "glue/rte"]):
        panels = cost_panels(table, analyse(table, {}), names)
        assert [panel.title for panel in panels] == [
            {"average": "average", "glue/rte": "RTE (accuracy)", "glue/stsb": "STS-B (Pearson correlation)"}[name]
            for name in names
        ]


def costly(record: RunRecord) -> RunRecord:
    memory = Memory(
        train_peak_allocated_bytes=None,
        train_peak_reserved_bytes=None,
        eval_peak_reserved_bytes=None,
        baseline_reserved_bytes=None,
        host_rss_peak_bytes=2**30,
        train_peak_tensor_bytes=3 * 2**20,
    )
    return replace(record, memory=memory, storage=Storage(adapter_bytes=4096))


def costs(records: list[RunRecord]) -> dict[str, float]:
    table = the_table(records)
    panels = cost_panels(table, analyse(table, {}), table.tasks)
    return {panel.x_label: panel.curves[0].points[0].x for panel in panels}


def test_a_cost_that_no_run_knows_has_no_panel():
    assert costs([finished()]) == {"training time, s": 4.0}


def test_costs_are_seconds_mebibytes_and_kibibytes():
    found = costs([costly(finished())])
    assert found == {"training time, s": 4.0, "training peak memory, MiB": 3.0, "stored adapter, KiB": 4.0}


def test_rank_curves_are_of_methods_with_several_ranks():
    records = [finished(rank=rank, parameters=100 * rank) for rank in (4, 8)] + [finished("vera")]
    table = the_table(records)
    (panel,) = rank_panels(table, analyse(table, {}))
    assert [(curve.method, [point.x for point in curve.points]) for curve in panel.curves] == [("lora", [4.0, 8.0])]
    assert panel.front == ()


def test_one_rank_each_has_no_rank_curves():
    table = the_table([finished(), finished("vera")])
    assert rank_panels(table, analyse(table, {})) == []


def rated(rate: float, value: float, seed: int = 0, adapter: str = "lora", **config: Any) -> RunRecord:
    record = finished(adapter, value=value, seed=seed, learning_rate=rate, **config)
    return with_section(record, "adapter", learning_rate=rate)


def test_learning_rates_of_one_method_are_a_curve_with_the_range_of_seeds():
    table = the_table([rated(0.1, 0.5), rated(0.1, 0.7, seed=1), rated(0.01, 0.9), rated(0.1, 0.9, adapter="vera")])
    (panel,) = rate_panels(table)
    (curve,) = panel.curves
    assert curve.method == "lora"
    assert [point[:4] for point in curve.points] == [(0.01, 90.0, None, None), (0.1, pytest.approx(60.0), 50.0, 70.0)]


def test_a_curve_over_learning_rates_mixes_no_other_settings():
    records = [rated(rate, 0.5, warmup=warmup) for rate in (0.1, 0.01) for warmup in (0.0, 0.5)]
    (panel,) = rate_panels(the_table(records))
    assert [curve.name for curve in panel.curves] == ["LoRA (r=4, warmup=0.0)", "LoRA (r=4, warmup=0.5)"]


def test_curves_of_one_method_are_numbered_alike_in_all_panels():
    records = [
        finished(adapter, task, rank=rank, parameters=100 * rank, warmup=warmup)
        for adapter, task in (("lora", "rte"), ("lora", "stsb"), ("vera", "rte"))
        for warmup in (0.0, 0.5)
        for rank in (4, 8)
    ]
    table = the_table(records)
    panels = score_panels(table, analyse(table, {}))
    assert {(curve.name, curve.number) for panel in panels for curve in panel.curves} == {
        ("LoRA (warmup=0.0)", 0),
        ("LoRA (warmup=0.5)", 1),
        ("VeRA (warmup=0.0)", 0),
        ("VeRA (warmup=0.5)", 1),
    }


def trained(table: Table, steps: dict[int, tuple[int, ...]]) -> list[Panel]:
    losses = {
        run.record.run_id: History(run.record.run_id, "x", steps[run.record.seed], (1.0 + run.record.seed, 0.5))
        for run in table.runs
        if run.record.seed in steps
    }
    return training_panels(table, losses)


def test_training_curves_average_the_seeds_that_are_known():
    table = the_table([finished(seed=seed) for seed in range(3)])
    (panel,) = trained(table, {0: (10, 20), 1: (10, 20)})
    assert [(point.x, point.y) for point in panel.curves[0].points] == [(10, 1.5), (20, 0.5)]


def test_one_logged_step_is_no_curve():
    assert trained(the_table([finished()]), {0: (1,)}) == []


def test_seeds_that_logged_other_steps_are_not_averaged():
    table = the_table([finished(seed=seed) for seed in range(2)])
    assert trained(table, {0: (10, 20), 1: (10, 30)}) == []


def test_long_bars_are_cut_and_short_ones_are_not():
    def shown(low: float) -> tuple[float, float] | None:
        points = (Point(1, 80.0, low, 81.0, ""), Point(2, 90.0, 89.0, 91.0, ""))
        return Panel("", "", "", (Curve("a", "a", points),)).y_range

    assert shown(79.0) == (78.5, 91.5)
    assert shown(-100.0) == (74.5, 91.5)


def test_intervals_end_where_the_metric_ends():
    panel = panel_of([sized(value, 100, seed) for seed, value in enumerate((0.9, 1.0, 0.95))] + [sized(0.5, 200)])
    (point,), (low, high) = panel.curves[0].points, panel.y_range or (0, 0)
    assert point.high == pytest.approx(100.0, abs=0.1) and panel.ends == (0.0, 100.0)
    assert 40 < low < 50 and 100 <= high < 102


def test_a_score_without_known_ends_is_not_cut():
    records = losing([sized(value, 100, seed) for seed, value in enumerate((0.001, 0.2))])
    panel = panel_of(records)
    low = panel.curves[0].points[0].low
    assert panel.ends is None and low is not None and low < 0


def test_curves_are_by_family_then_size_and_ranks_by_number():
    records = [finished(rank=rank, parameters=10 * rank) for rank in (16, 4, 8)]
    records += [finished("vera", parameters=5), finished("lorta", parameters=30), finished("full", parameters=9999)]
    table = the_table(records)
    names = [curve.name for curve in trained(table, {0: (1, 2)})[0].curves]
    assert names == ["Full FT (r=4)", "LoRA (r=4)", "LoRA (r=8)", "LoRA (r=16)", "LoRTA (r=4)", "VeRA (r=4)"]


def test_loss_plots_are_named_for_the_loss():
    (panel,) = trained(the_table([finished()]), {0: (10, 20)})
    assert (panel.title, panel.y_label) == ("RTE: training loss", "training loss")
