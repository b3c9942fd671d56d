"""Grades as a table, a CSV file and a plot."""

import csv
import json

import pytest

from experiments.judge.report import read_grades, write_report


def grades(file, rows, judge="gpt"):
    lines = [
        {"key": str(n), "judge": judge, "question_id": n, "category": category, "turn": turn, "score": score}
        for n, (category, turn, score) in enumerate(rows)
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


@pytest.fixture
def files(tmp_path):
    first = [("writing", 1, 8.0), ("writing", 2, 6.0), ("math", 1, 3.0), ("math", 2, None)]
    return {
        "lora": grades(tmp_path / "lora.jsonl", first),
        "base": grades(tmp_path / "base.jsonl", [("writing", 1, 2.0), ("writing", 2, 2.0)]),
    }


def test_the_table_has_a_row_for_each_model_and_says_what_has_no_score(files, tmp_path):
    assert write_report(files, tmp_path / "out").splitlines() == [
        "| model | writing | math | turn 1 | turn 2 | all | without score |",
        "|---|---|---|---|---|---|---|",
        "| lora | 7.00 | 3.00 | 5.50 | 6.00 | 5.67 | 1 |",
        "| base | 2.00 | - | 2.00 | 2.00 | 2.00 | 0 |",
    ]


def test_the_csv_is_not_rounded(files, tmp_path):
    write_report(files, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "mt_bench.csv").open()))
    (whole,) = [row for row in rows if row["model"] == "lora" and row["category"] == "all"]
    assert float(whole["score"]) == pytest.approx(17 / 3)
    assert (whole["scored"], whole["unscored"]) == ("3", "1")


def test_the_plot_depends_on_the_grades_alone(files, tmp_path):
    for folder in "ab":
        write_report(files, tmp_path / folder)
    first, second = ((tmp_path / folder / "mt_bench.png").read_bytes() for folder in "ab")
    assert first == second and first.startswith(b"\x89PNG")
    write_report({"lora": files["base"]}, tmp_path / "c")
    assert (tmp_path / "c" / "mt_bench.png").read_bytes() != first


def test_files_without_grades_or_with_two_judges_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="no grades"):
        read_grades({"x": tmp_path / "none.jsonl"})
    file = grades(tmp_path / "x.jsonl", [("math", 1, 3.0)])
    other = json.loads(file.read_text()) | {"judge": "other", "key": "b"}
    file.write_text(file.read_text() + json.dumps(other) + "\n")
    with pytest.raises(ValueError, match=r"several judges \(gpt, other\)"):
        read_grades({"x": file})
