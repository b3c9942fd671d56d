"""The cost of a verdict: core-seconds are summed over all runs of a way, and both ways ask the same question."""

import argparse
import csv
from dataclasses import replace

import pytest

from benchmarks import deciding
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.record import Question, RunRecord
from lorta.records.store import Store
from tests.example_records import finished, with_config

ASKED = (Question(method="lorta r=4", reference="lora r=4", margin=1.0),)


def run(adapter: str, seed: int, cpu_s: float | None, **config: object) -> RunRecord:
    record = with_config(finished(adapter, "stsb", 0.8 + seed * len(adapter) % 3 / 1000, seed), **config)
    assert record.time is not None
    return replace(record, questions=ASKED, time=replace(record.time, cpu_s=cpu_s))


def test_trials_and_runs_are_summed_and_a_run_without_a_time_is_counted():
    trial = run("lora", 1000, 3.0, data={"holdout": 400})
    row = deciding.row_of("now", [trial, run("lora", 0, 10.0), run("lora", 1, 11.5), run("lorta", 0, None)], ["a"])
    assert row == {
        **{"way": "now", "trials": 1, "runs": 3, "seeds": 2, "core_s": 24.5, "without_time": 1, "verdicts": "a"},
    }
    assert deciding.ratio([{"way": "before", "core_s": 49.0}, row]) == 0.5


def test_both_ways_are_plans_of_the_same_question(tmp_path):
    given = argparse.Namespace(budgets="600,1k", model="tiny", margin=1.0, steps=4, data=None, runs=tmp_path, more=[])
    plans = {way: make_plan(deciding.words_of(way, given)[1:], True, CONF) for way in deciding.WAYS}
    assert [plan.problems for plan in plans.values()] == [(), ()]
    asked = {
        way: {(of.method, of.reference, of.margin) for of in plan.runs[0].questions or _of(plan)}
        for way, plan in plans.items()
    }
    assert asked["before"] == asked["now"] != set()


def _of(plan) -> tuple[Question, ...]:
    return plan.waiting[0][0].questions


def test_the_command_prints_and_saves_both_ways(tmp_path, monkeypatch, capsys):
    def fake(words: list[str]) -> int:
        folder = next(word.partition("=")[2] for word in words if word.startswith("runtime.runs="))
        cost = 10.0 if folder.endswith("before") else 4.0
        for adapter in ("lora", "lorta"):
            for seed in range(3):
                Store(folder).write(run(adapter, seed, cost))
        return 0

    monkeypatch.setattr(deciding, "run", fake)
    file = tmp_path / "deciding.csv"
    assert deciding.main(["--runs", str(tmp_path / "runs"), "--save", str(file)]) == 0
    assert "core-seconds, now / before: 0.40" in capsys.readouterr().out
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["way"], row["core_s"], row["verdicts"]) for row in rows] == [
        ("before", "60.0", "lorta r=4: equivalent"),
        ("now", "24.0", "lorta r=4: equivalent"),
    ]
    assert float(rows[0]["ratio"]) == pytest.approx(0.4)
