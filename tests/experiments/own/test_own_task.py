"""Own texts without code: every format gives the same rows, labels are sorted, and a run's record holds them."""

import csv
import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from experiments.own.readers import read_rows
from experiments.own.table import choose_columns, in_order
from lorta.analysis.summary import summarise
from lorta.cli.main import main
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.reporting.captions import caption

ROWS = [{"text": f'the {word}, "old"\tdog', "label": label} for word, label in zip("abcdefgh", "zyxzyxzy", strict=True)]
MODEL = "model=tiny"


def as_csv(rows: list[dict[str, Any]], separator: str = ",") -> str:
    from io import StringIO

    stream = StringIO()
    table = csv.DictWriter(stream, list(rows[0]), delimiter=separator)
    table.writeheader()
    table.writerows(rows)
    return stream.getvalue()


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), file)
        return
    kind = file.name.removesuffix(".gz").rpartition(".")[2]
    text = {
        "csv": lambda: as_csv(rows),
        "tsv": lambda: as_csv(rows, "\t"),
        "json": lambda: json.dumps(rows),
        "jsonl": lambda: "".join(json.dumps(row) + "\n" for row in rows),
    }[kind]()
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def planned(*words: str):
    plan = make_plan([MODEL, *words], False, CONF)
    assert plan.problems == ()
    return plan


@pytest.mark.parametrize(
    "ending", ["csv", "tsv", "jsonl", "json", "parquet", "csv.gz", "tsv.gz", "jsonl.gz", "json.gz"]
)
def test_each_format_gives_the_same_rows(ending, tmp_path):
    write(tmp_path / f"train.{ending}", ROWS)
    assert [row for _, row in read_rows(tmp_path / f"train.{ending}")] == ROWS


def test_a_cell_of_two_lines_is_placed_by_its_first(tmp_path):
    (tmp_path / "train.csv").write_text('text,label\n"two\nlines",a\nold,b\n')
    assert [place for place, _ in read_rows(tmp_path / "train.csv")] == ["line 2", "line 4"]


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path):
    (tmp_path / "train.csv").write_bytes("\ufefftext,label\nold,a\n".encode())
    assert next(read_rows(tmp_path / "train.csv"))[1] == {"text": "old", "label": "a"}


def test_labels_are_sorted_as_numbers_or_as_text():
    assert in_order(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert in_order(["b", "B", "a", "10", "9"]) == ("10", "9", "B", "a", "b")


@pytest.mark.parametrize(
    ("names", "texts", "label", "expected"),
    [
        (["text", "label"], None, None, (("text",), "label")),
        (["id", "message", "label"], None, None, (("message",), "label")),
        (["sentence2", "score", "sentence1"], None, None, (("sentence1", "sentence2"), "score")),
        (["premise", "hypothesis", "Label"], None, None, (("premise", "hypothesis"), "Label")),
        (["message", "team"], ["message"], None, (("message",), "team")),
        (["message", "team"], None, "team", (("message",), "team")),
        (["a", "b", "c"], ["b", "a"], "c", (("b", "a"), "c")),
    ],
)
def test_columns_are_taken_by_name_or_recognised(names, texts, label, expected):
    chosen = choose_columns(names, texts, label, "here")
    assert (chosen.texts, chosen.label) == expected


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "test"])
def test_the_scored_file_has_one_of_the_usual_names(name, tmp_path):
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / f"{name}.jsonl", ROWS[:3])
    (spec,) = planned("task=classification", f"data.root={tmp_path}").specs
    assert {use: count.used for use, count in spec.data.counts.items()} == {"train": 8, "evaluation": 3}
    task: Any = spec.task
    assert spec.data.labels == task.labels == ("x", "y", "z")


def test_the_plan_says_what_it_recognised_and_what_looks_odd(tmp_path):
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "validation.csv", ROWS[:2])
    write(tmp_path / "test.csv", ROWS)
    notes = planned("task=classification", f"data.root={tmp_path}").notes
    assert notes == (
        "task=classification: text from text, label from label, 3 classes: x, y, z",
        "task=classification: no scored row has the label x",
        "task=classification: 2 of 2 scored rows are also trained on",
        "task=classification: not read: test.csv",
    )
    assert (
        "not read: validation.csv"
        in planned("task=classification", f"data.root={tmp_path}", "task.evaluation_split=test").notes[-1]
    )


def test_a_part_of_a_single_file_is_held_out_whatever_the_seed(tmp_path):
    write(tmp_path / "all.csv", ROWS)
    words = ["task=classification", f"data.root={tmp_path}/all.csv", "data.holdout=0.25"]
    specs = [planned(*words, f"seed={seed}").specs[0] for seed in (0, 1)]
    tasks: list[Any] = [spec.task for spec in specs]
    tables = [task._tables(spec.settings.data)[:2] for task, spec in zip(tasks, specs, strict=True)]
    texts = [[row["text0"] for row in table.rows] for table in tables[0]]
    assert texts == [[row["text0"] for row in table.rows] for table in tables[1]]
    assert (len(texts[0]), len(texts[1])) == (6, 2) and sorted(texts[0] + texts[1]) == [row["text"] for row in ROWS]
    assert specs[0].cell_id == specs[1].cell_id
    assert planned(*words[:2], "data.holdout=0.375").specs[0].cell_id != specs[0].cell_id


def test_each_class_has_its_share_of_the_scored_rows(tmp_path):
    labels = ["often"] * 80 + ["seldom"] * 20
    write(tmp_path / "all.csv", [{"text": f"row {number}", "label": label} for number, label in enumerate(labels)])
    words = ["task=classification", f"data.root={tmp_path}", "data.holdout=0.1", "task.name=a,b"]
    for spec in make_plan([MODEL, *words], True, CONF).specs:
        task: Any = spec.task
        scored = task._tables(spec.settings.data)[1]
        assert Counter(scored.labels) == {"often": 8, "seldom": 2}
        assert scored.rows[0]["text0"] != "row 0" or scored.rows[1]["text0"] != "row 1"  # drawn, not the first


def test_a_fraction_is_for_own_files_only():
    problems = make_plan(["task=glue/rte", "data.holdout=0.1"], False, CONF).problems
    assert problems == ("data.holdout=0.1: task=glue/rte has a split to score: give a number of rows",)


def test_a_run_of_own_files_keeps_labels_scores_and_the_users_metric(tmp_path, monkeypatch, capsys):
    """One tiny run through the command: text labels, a metric in the user's file, the record, the second command."""
    monkeypatch.chdir(tmp_path)
    words = ["the", "old", "dog", "sees", "a", "small", "ball", "and", "a", "red", "hill"]
    rows = [{"text": " ".join(words[n % 5 : n % 5 + 4]), "label": ["low", "high"][n % 2]} for n in range(24)]
    write(tmp_path / "own" / "all.csv", rows)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cost.py").write_text(
        "def cost(predictions, references):\n    return sum(p == r == 'low' for p, r in zip(predictions, references))\n"
    )
    (tmp_path / "mine" / "task").mkdir()
    (tmp_path / "mine" / "task" / "levels.yaml").write_text(
        "defaults: [classification]\nname: levels\nmetrics: [accuracy, f1_macro, cost.py:cost]\n"
    )
    command = ["run", "--conf", "mine", "task=levels", MODEL, "trainer=smoke", "trainer.max_steps=1"]
    command += ["adapter=head_only", "data.root=own", "data.holdout=0.25", "runtime.workers=0"]
    assert main(command) == 0
    (record,) = Store("runs").records()
    assert record.task is not None and record.metrics is not None and record.predictions_file is not None
    assert record.task.labels == ("high", "low") and not record.is_trial
    scores = record.metrics["evaluation"]
    predicted = Store("runs").read_rows(record.run_id, record.predictions_file)
    assert {row["reference"] for row in predicted} <= {"high", "low"}
    right = [row["prediction"] == row["reference"] for row in predicted]
    assert set(scores) == {"accuracy", "f1_macro", "cost"}
    assert "Classes of levels: high, low." in caption(summarise([record])[0])
    assert scores["accuracy"].value == pytest.approx(sum(right) / 6)
    assert scores["cost"].value == sum(row["prediction"] == row["reference"] == "low" for row in predicted)
    assert record.code is not None
    Store("runs").write(replace(record, code=replace(record.code, git_dirty=True)))
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "1 run: 0 to do, 1 done" in printed
    assert "1 of 1 done runs had uncommitted changes" in printed and "runtime.force=true" in printed


def test_scores_of_own_classes_are_those_of_sklearn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = ["low", "high", "middle"]
    write(tmp_path / "own" / "all.csv", [{"text": f"the dog sees {n}", "label": labels[n % 3]} for n in range(30)])
    (spec,) = make_plan(["task=classification", MODEL, "data.root=own", "data.holdout=0.2"], False, CONF).specs
    true, predicted = (
        ["low", "low", "high", "middle", "middle", "high"],
        ["low", "high", "high", "low", "middle", "high"],
    )
    rows = [{"prediction": one, "reference": other} for one, other in zip(predicted, true, strict=True)]
    scores = {name: score.value for name, score in spec.task.score(rows).items()}
    assert scores == pytest.approx(
        {
            "accuracy": 4 / 6,
            "f1_macro": f1_score(true, predicted, average="macro"),
            "matthews_correlation": matthews_corrcoef(true, predicted),
        }
    )


def test_a_run_of_own_numbers_has_both_correlations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "own" / "all.csv", [{"text": f"the dog {'sees ' * n}", "score": n / 2} for n in range(24)])
    command = ["run", "task=regression", MODEL, "trainer=smoke", "trainer.max_steps=1", "adapter=head_only"]
    assert main([*command, "data.root=own", "data.holdout=0.25", "runtime.workers=0"]) == 0
    (record,) = Store("runs").records()
    assert record.task is not None and record.metrics is not None and record.predictions_file is not None
    assert record.task.labels is None or not record.task.labels
    rows = Store("runs").read_rows(record.run_id, record.predictions_file)
    predicted, true = ([row[name] for row in rows] for name in ("prediction", "reference"))
    scores = record.metrics["evaluation"]
    assert scores["pearson"].value == pytest.approx(pearsonr(predicted, true).statistic, abs=1e-6)
    assert scores["spearmanr"].value == pytest.approx(spearmanr(predicted, true).statistic, abs=1e-6)
    assert set(scores) == {"pearson", "spearmanr"} and set(true) <= {n / 2 for n in range(24)}


def test_a_users_metric_that_fails_stops_the_plan(tmp_path, monkeypatch):
    write(tmp_path / "own" / "train.csv", ROWS)
    write(tmp_path / "own" / "dev.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.py").write_text(
        "def none(p, r):\n    return None\ndef one(p):\n    return 1\ndef nan(p, r):\n    return float('nan')\n"
        "def leaves(p, r):\n    raise SystemExit(0)\n"
    )
    expected = {
        "none": "raised TypeError",
        "one": "must take two lists",
        "nan": "returned nan",
        "leaves": "raised SystemExit",
        "two": "no function two",
    }
    for name, sentence in expected.items():
        words = [MODEL, "task=classification", "data.root=own", f"task.metrics=[accuracy,'bad.py:{name}']"]
        (problem,) = make_plan(words, False, CONF).problems
        assert sentence in problem and f"bad.py{'' if name == 'two' else ':' + name}" in problem


def test_a_changed_metric_is_another_run(tmp_path, monkeypatch):
    write(tmp_path / "own" / "train.csv", ROWS)
    write(tmp_path / "own" / "dev.csv", ROWS)
    monkeypatch.chdir(tmp_path)
    words = ["task=classification", "data.root=own", "task.metrics=[accuracy,'m.py:cost']"]
    names = []
    for value in (1, 2):
        (tmp_path / "m.py").write_text(f"def cost(predictions, references):\n    return {value}.0\n")
        names.append(planned(*words).specs[0].run_id)
    assert len(set(names)) == 2
