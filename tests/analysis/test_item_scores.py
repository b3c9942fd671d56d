import gzip
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.metrics import score as glue_score
from lorta.analysis.item_scores import Line, from_store, item_scores, items_file, read_items, write_items
from lorta.cli.main import main
from lorta.config import instantiate
from lorta.records.record import RunRecord, Score, SideFile
from lorta.records.sections import Spread
from lorta.records.store import Store, export, read_export
from tests.example_records import finished, with_config, with_section


@pytest.fixture(autouse=True)
def tasks_of_tests(monkeypatch) -> None:
    """Records here name a task of this file, as those of a user name one of a package that conf names."""
    monkeypatch.setattr(instantiate, "OWN", instantiate.OWN | {"tests"})


def scorer(task: str) -> Any:
    return lambda rows: glue_score(task, [row["prediction"] for row in rows], [row["reference"] for row in rows])


def rows(count: int = 40, regression: bool = False) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    references = generator.normal(size=count) if regression else generator.integers(2, size=count)
    noise = generator.normal(size=count)
    predictions = references + noise if regression else (references + (noise > 1)) % 2
    return [
        {"idx": place, "reference": reference, "prediction": prediction, "logits": [0.1 * place]}
        for place, (reference, prediction) in enumerate(zip(references.tolist(), predictions.tolist(), strict=True))
    ]


def test_items_of_an_accuracy_are_right_or_wrong():
    expected = tuple(float(row["reference"] == row["prediction"]) for row in rows())
    assert item_scores(scorer("rte"), "accuracy", rows()) == expected


@pytest.mark.parametrize(
    ("task", "metric", "regression"), [("cola", "matthews_correlation", False), ("stsb", "pearson", True)]
)
def test_items_of_a_correlation_average_to_it_and_have_its_standard_error(task, metric, regression):
    found = np.array(item_scores(scorer(task), metric, rows(150, regression)))
    assert found.mean() == pytest.approx(scorer(task)(rows(150, regression))[metric].value, abs=0.02)
    generator = np.random.default_rng(1)
    drawn = [rows(150, regression)[place] for place in range(150)]
    resampled = [
        scorer(task)([drawn[place] for place in generator.integers(150, size=150)])[metric].value for _ in range(100)
    ]
    assert found.std(ddof=1) / 150**0.5 == pytest.approx(np.std(resampled), rel=0.25)


def test_equal_rows_are_scored_once():
    calls = []

    def counting(found: Sequence[Mapping[str, Any]]) -> Any:
        calls.append(len(found))
        return scorer("rte")(found)

    item_scores(counting, "accuracy", rows(200))
    assert len(calls) < 10  # not 200: there are four pairs of reference and prediction


def test_scores_that_need_the_logits_keep_them():
    def first_logit(found: Sequence[Mapping[str, Any]]) -> dict[str, Score]:
        return {"mean": Score(value=float(np.mean([row["logits"][0] for row in found])), n=len(found))}

    assert item_scores(first_logit, "mean", rows(5)) == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))


def test_metric_that_one_row_decides_has_no_items():
    constant = [
        {"reference": 1.0, "prediction": 1.0},
        {"reference": 1.0, "prediction": 1.0},
        {"reference": 2.0, "prediction": 3.0},
    ]
    assert item_scores(scorer("stsb"), "pearson", constant) is None


def test_rows_of_a_constant_answer_count_as_zero_like_its_correlation(tmp_path):
    store = Store(tmp_path)
    spread = Spread(predictions_std=0.0, labels_std=1.5, predicted_classes=None, label_classes=None, collapsed=True)
    record = replace(finished(task="stsb", value=None), spread=spread)
    constant = [{"reference": float(place), "prediction": 2.5} for place in range(4)]
    file = store.write_rows(record.run_id, "predictions.jsonl", constant)
    undefined = Score(value=None, n=4, reason="all predictions are equal")
    record = replace(record, predictions_file=file, metrics={"validation": {"pearson": undefined}})
    (line,) = from_store([record], store)
    assert line.items == (0.0, 0.0, 0.0, 0.0)


def a_run(store: Store) -> tuple[RunRecord, Line]:
    """Return a finished run with predictions in the store, and its line."""
    record = finished(value=0.0)
    task = {"_target_": "tests.analysis.test_item_scores.Task"}
    record = with_config(record, task=task)
    file = store.write_rows(record.run_id, "predictions.jsonl", rows())
    right = sum(row["reference"] == row["prediction"] for row in rows())
    score = Score(value=right / 40, n=40)
    record = replace(record, predictions_file=file, metrics={"validation": {"accuracy": score}})
    store.write(record)
    (line,) = from_store([record], store)
    return record, line


class Task:
    """A task as a record's configuration names it."""

    score = staticmethod(scorer("rte"))


def test_lines_read_back_as_they_were_written(tmp_path):
    record, line = a_run(Store(tmp_path))
    write_items([line, Line("0" * 12, "x", "pearson", (0.5, -1.25))], tmp_path / "items.jsonl.gz")
    assert read_items(tmp_path / "items.jsonl.gz", [record]) == {record.run_id: line.items}
    assert '"items": "' in gzip.decompress((tmp_path / "items.jsonl.gz").read_bytes()).decode()


def test_predictions_that_changed_after_the_run_are_refused(tmp_path):
    record, _ = a_run(Store(tmp_path))
    (tmp_path / record.run_id / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="must have sha256"):
        from_store([record], Store(tmp_path))


def test_run_without_predictions_at_hand_is_left_out(tmp_path):
    record = replace(finished(), predictions_file=SideFile(path="predictions.jsonl", sha256="x", n=3))
    assert from_store([record, finished("vera")], Store(tmp_path)) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda line, record: (replace(line, predictions_sha256="x"), record), "has other predictions"),
        (
            lambda line, record: (replace(line, items=line.items[1:]), record),
            "another primary metric or number of rows",
        ),
        (lambda line, record: (replace(line, items=(0.0,) * 40), record), "items average 0.0"),
        (lambda line, record: (line, with_section(record, "task", metric_primary="f1")), "another primary metric"),
    ],
)
def test_items_of_another_run_are_refused(tmp_path, change, problem):
    record, line = a_run(Store(tmp_path))
    line, record = change(line, record)
    write_items([line], tmp_path / "items.jsonl.gz")
    with pytest.raises(ValueError, match=f"line 1: .*{problem}"):
        read_items(tmp_path / "items.jsonl.gz", [record])


def test_scores_of_rows_are_added_to_an_exported_suite_without_touching_it(tmp_path, capsys):
    record, line = a_run(Store(tmp_path / "runs"))
    suite = tmp_path / "results" / "records" / "x.jsonl"
    export([record], suite)
    before = suite.stat().st_mtime_ns
    assert main(["collect", "--records", str(suite), "--runs", str(tmp_path / "runs")]) == 0
    assert "of 1 record, 1 with the scores of their rows" in capsys.readouterr().out
    assert suite.stat().st_mtime_ns == before
    assert read_items(items_file(tmp_path / "results", "x"), [record]) == {record.run_id: line.items}
    assert main(["table", "--records", str(suite), "--results", str(tmp_path / "results")]) == 0
    assert "resamples of seeds and scored rows" in capsys.readouterr().out


def collect(folder: Path) -> int:
    return main(["collect", "--runs", str(folder / "runs"), "--name", "x", "--results", str(folder)])


def test_a_collected_suite_keeps_the_scores_of_its_rows(tmp_path, capsys):
    record, line = a_run(Store(tmp_path / "runs"))
    assert collect(tmp_path) == 0
    assert "1 record (1 success), 1 with the scores of their rows" in capsys.readouterr().out
    assert read_items(items_file(tmp_path, "x"), [record]) == {record.run_id: line.items}
    assert read_export(tmp_path / "records" / "x.jsonl") == [record]


def test_collecting_again_keeps_the_scores_of_rows_whose_predictions_are_gone(tmp_path):
    record, line = a_run(Store(tmp_path / "runs"))
    assert collect(tmp_path) == 0
    (tmp_path / "runs" / record.run_id / "predictions.jsonl").unlink()
    assert collect(tmp_path) == 0
    assert read_items(items_file(tmp_path, "x"), [record]) == {record.run_id: line.items}


def test_collecting_again_computes_only_what_is_new(tmp_path, monkeypatch):
    record, line = a_run(Store(tmp_path / "runs"))
    assert collect(tmp_path) == 0
    monkeypatch.setattr("lorta.analysis.item_scores.item_scores", lambda *_: pytest.fail("computed again"))
    assert collect(tmp_path) == 0
    assert read_items(items_file(tmp_path, "x"), [record]) == {record.run_id: line.items}


def test_a_suite_whose_task_is_not_installed_is_collected_without_the_scores_of_its_rows(tmp_path):
    record, _ = a_run(Store(tmp_path / "runs"))
    foreign = with_config(record, task={"_target_": "elsewhere.Task"})
    file = Store(tmp_path / "runs").write_rows(foreign.run_id, "predictions.jsonl", rows())
    Store(tmp_path / "runs").write(replace(foreign, predictions_file=file))
    with pytest.warns(UserWarning, match=r"'elsewhere\.Task' is code of elsewhere"):
        assert collect(tmp_path) == 0
    assert len(read_export(tmp_path / "records" / "x.jsonl")) == 2
    assert list(read_items(items_file(tmp_path, "x"), [record])) == [record.run_id]


def test_collecting_what_tables_will_refuse_says_so(tmp_path, capsys):
    record, _ = a_run(Store(tmp_path / "runs"))
    Store(tmp_path / "runs").write(with_section(record, "code", git_dirty=True))
    assert collect(tmp_path) == 0
    assert "`lorta table` will refuse this suite: record" in capsys.readouterr().err
    assert main(["table", "--records", str(tmp_path / "records" / "x.jsonl"), "--results", str(tmp_path)]) == 2
    assert "uncommitted changes" in capsys.readouterr().err


def test_torn_line_is_refused_with_its_number(tmp_path):
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(b'{"run_id": "a"}\n'))
    with pytest.raises(ValueError, match="line 1: it needs exactly run_id"):
        read_items(tmp_path / "items.jsonl.gz", [])
