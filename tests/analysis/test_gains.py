"""What training gained against the untouched model, from made-up records."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lorta.analysis.gains import gains
from lorta.analysis.item_scores import Items, Line
from lorta.analysis.summary import summarise
from lorta.records.record import Question, Score
from lorta.reporting.gains import gain_grid, gain_section
from lorta.reporting.headline import finding
from tests.example_records import finished

ROWS = 277


def run(adapter, value, seed=0, base=0.6, higher=True):
    record = finished(adapter, "rte", value, seed)
    scores = {**record.metrics["validation"], "base_accuracy": Score(value=base, n=ROWS)}
    task = replace(record.task, higher_is_better=higher)
    return replace(record, task=task, metrics={"validation": scores})


def test_a_gain_is_paired_over_seeds_with_its_interval():
    values = np.array([0.70, 0.72, 0.71])
    (table,) = summarise([run("lora", value, seed) for seed, value in enumerate(values)])
    (gain,) = gains(table, {})
    low, high = stats.t.interval(0.95, 2, 100 * (values - 0.6).mean(), stats.sem(100 * values))
    assert (gain.score, gain.untouched) == (pytest.approx(71.0), pytest.approx(60.0))
    assert gain.answer.interval == pytest.approx((low, high), abs=1e-6)
    assert gain.answer.verdict == "better"


def test_a_lower_loss_is_a_gain_and_a_higher_one_is_none():
    records = [run(name, value, seed, base=2.0, higher=False) for name, value in (("lora", 1.5), ("vera", 2.4))
               for seed, value in enumerate((value, value + 0.01, value - 0.01))]  # fmt: skip
    (table,) = summarise(records)
    verdict = {gain.row.label: str(gain.answer.verdict) for gain in gains(table, {})}
    assert verdict == {"lora r=4": "better", "vera r=4": "worse"}
    cells = {line[0]: line[3] for line in gain_grid(table, {}).body}
    assert cells == {"lora r=4": "+0.5000", "vera r=4": "-0.4000"}


def test_rows_widen_the_interval_unless_the_untouched_model_has_the_same_ones_right():
    records = [run("lora", 0.7, seed) for seed in range(3)]
    (table,) = summarise(records)
    right = np.zeros(ROWS)
    right[:194] = 1.0
    like, other = right.copy(), np.roll(right, 120)
    like[166:194] = 0.0
    widths = []
    for base in (like, other):
        items = {record.run_id: Items(right.tolist(), base=tuple(base)) for record in records}
        (gain,) = gains(table, items)
        widths.append(gain.answer.interval[1] - gain.answer.interval[0])
    assert 1.0 < widths[0] < 0.7 * widths[1]


def test_an_interval_ends_where_the_metric_does():
    (table,) = summarise([run("lora", value, seed) for seed, value in enumerate((0.5, 0.9))])
    (line,) = gain_grid(table, {}).body
    assert line[3:5] == ("+10.0", "-60.0 to +40.0")  # of an untouched score of 60


def test_runs_without_a_score_of_the_untouched_model_have_no_line_and_a_single_seed_no_interval():
    without = finished("vera", "rte", 0.8)
    (table,) = summarise([run("lora", 0.7), without])
    (gain,) = gains(table, {})
    assert (gain.row.label, gain.answer) == ("lora r=4", None)
    assert "with a single seed" in gain_section([table], {})
    (plain,) = summarise([without])
    assert (gain_grid(plain, {}), gain_section([plain], {})) == (None, "")


def test_a_line_for_readme_has_the_first_verdict_and_the_gains():
    asked = (Question(method="lora r=4", reference="vera r=4", margin=None),)
    records = [run("lora", 0.7 + 0.001 * seed, seed) for seed in range(3)]
    records += [run("vera", 0.65, seed) for seed in range(3)]
    line = finding([replace(record, questions=asked) for record in records], {}, "x", "x.jsonl.gz")
    assert line.startswith("- RTE: **LoRA (r=4) is better than VeRA (r=4) on RTE: difference +5.10")
    assert "Gains over the untouched model: LoRA (r=4) +10.1 [" in line
    assert line.endswith("[report](results/reports/x.md), [page](results/pages/x.html)\n")


def test_a_question_without_an_answer_yet_is_said_to_have_none():
    asked = (Question(method="lora r=4", reference="vera r=4", margin=None),)
    records = [replace(run(name, 0.7), questions=asked) for name in ("lora", "vera")]
    line = finding(records, {}, "x", "x.jsonl.gz")
    assert "**LoRA (r=4) against VeRA (r=4) on RTE: no answer, a comparison needs two seeds" in line
    alone = finding(records[:1], {}, "x", "x.jsonl.gz")
    assert "**LoRA (r=4) against VeRA (r=4) on RTE: no answer, no finished run of VeRA (r=4).**" in alone
    plain = finding([run("lora", 0.7)], {}, "x", "x.jsonl.gz")
    assert "asked no question" in plain


def test_scores_of_the_untouched_models_rows_are_kept_with_those_of_the_run():
    line = Line("0" * 12, "1" * 64, "accuracy", (1.0, 0.0, 1.0), base=(0.0, 0.0, 1.0))
    assert '"base": "001"' in line.to_json()
    assert Line.from_json(line.to_json()) == line
    assert line.scores.base == (0.0, 0.0, 1.0)
    older = Line("0" * 12, "1" * 64, "accuracy", (1.0, 0.0, 1.0))
    assert "base" not in older.to_json()
    assert Line.from_json(older.to_json()).scores.base is None
