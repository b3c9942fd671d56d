"""The forecast follows epochs, rows and length: within a factor of 1.5 on runs of another size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.status.forecast import Forecast, Past, Work, keys_of_record, work_of_record, work_of_spec
from lorta.status.states import RawRecord

MEASURED = Path(__file__).with_name("measured_times.jsonl")  # two sweeps on one machine: what a forecast reads


def measured(part: str) -> list[RawRecord]:
    """Return the runs of one sweep: `before` trained on 800 rows for 4 epochs, `after` on 1,500."""
    runs = map(json.loads, MEASURED.read_text().splitlines())
    return [RawRecord(MEASURED, run) for run in runs if run["part"] == part]


def test_twelve_runs_are_forecast_from_shorter_ones():
    """800 rows for 4 epochs tell 1,500 rows for 4 epochs, of the same methods, tasks and machine."""
    past = Past(measured("before"))
    ratios = []
    for record in measured("after"):
        forecast = past.expected(keys_of_record(record), work_of_record(record))
        if forecast is not None and "adapter" in forecast.kind:
            ratios.append(forecast.seconds / record.get("time", "wall_s"))
    ratios = ratios[:12]
    assert len(ratios) == 12
    assert max(ratios) < 1.5 and min(ratios) > 1 / 1.5, ratios


FORECAST = Forecast(1.0, None, "the same cell")
WORK = Work(epochs=1.0, steps=None, batch=8, rows=100, scored=50, longest=64)
DONE = {
    "status": "success",
    "cell_id": "c",
    "config": {"data": {"max_length": 64}},
    "protocol": {"epochs": 1.0, "max_steps": None},
    "batch": {"effective": 8},
    "task": {"split_primary": "evaluation", "splits": {"train": {"rows": 100}, "evaluation": {"rows": 50}}},
    "throughput": {"train_tokens_per_s": 320.0, "train_samples_per_s": 10.0},
    "time": {"wall_s": 20.0, "train_s": 10.0, "eval_s": 4.0},
}


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, 20.0),
        ({"epochs": 3.0}, 40.0),
        ({"rows": 200}, 30.0),
        ({"rows": None}, 20.0),
        ({"steps": 25}, 30.0),
        ({"scored": 100}, 24.0),
        ({"longest": 16}, 13.0),  # rows of 32 tokens: half of 14 s
        ({"longest": 512}, 20.0),  # they were not cut before
    ],
)
def test_seconds_follow_the_work(change, seconds):
    past = Past([RawRecord(Path("c"), DONE)])
    forecast = past.expected([("cell", "c"), (), (), ()], replace(WORK, **change))
    assert forecast is not None and forecast.seconds == pytest.approx(seconds)


def test_a_plan_knows_its_epochs_steps_and_rows():
    (spec,) = make_plan(["trainer.num_train_epochs=300", "data.max_train_samples=50"], False, CONF).specs
    work = work_of_spec(spec)
    assert (work.epochs, work.steps, work.batch, work.rows, work.longest) == (300.0, None, 32, 50, 128)
    (spec,) = make_plan(["trainer=smoke"], False, CONF).specs
    assert work_of_spec(spec).trained == 4 * 32


def test_a_thousand_seeds_of_a_cell_are_forecast_once(monkeypatch):
    specs = make_plan(["adapter=lora,lorta", "seed=range(0,500)"], True, CONF).specs
    past, asked = Past([]), list[str]()
    monkeypatch.setattr(past, "forecast", lambda spec: asked.append(spec.cell_id) or FORECAST)
    assert past.forecasts(specs) == {spec.run_id: FORECAST for spec in specs}
    assert asked == [specs[0].cell_id, specs[500].cell_id]
