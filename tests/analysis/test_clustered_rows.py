"""Rows of one passage, premise or family are resampled together, from the task's `cluster` to the interval."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.folding.batches import TargetRows
from experiments.questions.sources import RowSource
from experiments.questions.tokens import evaluation_row
from experiments.tokenised import cluster_name
from lorta.analysis.clusters import common_clusters
from lorta.analysis.item_scores import Items, Line, from_store
from lorta.analysis.significance import analyse
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.runner.execute import execute
from tests.example_records import finished, the_table
from tests.experiments.letters import letter_tokenizer

PASSAGES, EACH = 30, 10


def test_rows_of_one_premise_have_one_cluster_in_predictions_and_item_scores(tmp_path):
    folder = tmp_path / "data" / "glue" / "mnli"
    folder.mkdir(parents=True)
    premises = ["the truck sees the dog", "the cat runs", "the truck sees the dog", "a dog sleeps"]
    rows = [
        {"premise": premise, "hypothesis": f"the dog {verb}", "label": number % 3}
        for number, (premise, verb) in enumerate(zip(premises * 4, ["runs", "sees", "sleeps", "is"] * 4, strict=True))
    ]
    for name in ("train", "validation_matched"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["task=glue/mnli", "adapter=head_only", "trainer.max_steps=1", f"data.root={tmp_path}/data"]
    (spec,) = make_plan([*words, f"runtime.runs={tmp_path}/runs", f"runtime.cache={tmp_path}/c"], False, CONF).specs
    record, store = execute(spec), Store(tmp_path / "runs")
    assert record.status == "success", record.failure
    written = store.read_rows(record.run_id, record.predictions_file)
    assert [row["cluster"] for row in written] == [cluster_name(row["premise"]) for row in rows]
    (line,) = from_store([record], store)
    assert line.clusters == (0, 1, 0, 2) * 4


def test_a_cluster_that_is_no_column_is_refused():
    problems = make_plan(["task=glue/mnli", "task.cluster=passage"], False, CONF).problems
    assert any("task.cluster=passage" in problem and "premise, hypothesis" in problem for problem in problems)


def test_an_item_file_keeps_clusters_and_older_lines_have_none():
    line = Line("a" * 12, "x", "accuracy", (0.0, 1.0, 1.0), (0, 0, 1))
    assert Line.from_json(line.to_json()) == line
    assert line.scores == (0.0, 1.0, 1.0) and line.scores.clusters == (0, 0, 1)
    older = replace(line, clusters=None)
    assert json.loads(older.to_json()).keys() == {"run_id", "predictions_sha256", "metric", "items"}
    assert Line.from_json(older.to_json()).scores.clusters is None


def test_clusters_count_only_where_all_runs_name_the_same_ones():
    one, other = Items((0.0, 1.0, 1.0), (0, 0, 1)), Items((0.0, 1.0, 1.0), (0, 1, 1))
    assert common_clusters([one, one]).tolist() == [0, 0, 1]
    for items in ([one, other], [one, (0.0, 1.0, 1.0)], [one, None], [], [Items((0.0, 1.0), (0, 0))]):
        assert common_clusters(items) is None


def analysed(clusters: tuple[int, ...] | None):
    """Return the interval of a method whose answers to one passage are all right or all wrong."""
    right = np.repeat(np.random.default_rng(3).random(PASSAGES) < 0.7, EACH).astype(float)
    records = [finished(value=float(right.mean()), seed=seed) for seed in range(3)]
    items = {record.run_id: Items(right.tolist(), clusters) for record in records}
    return analyse(the_table(records), items).intervals[0, "glue/rte"]


def test_passages_that_are_right_or_wrong_as_a_whole_make_the_interval_as_wide_as_their_number_says():
    alone, together = analysed(None), analysed(tuple(np.repeat(np.arange(PASSAGES), EACH).tolist()))
    assert together.error == pytest.approx(alone.error * EACH**0.5, rel=0.1)
    assert together.high - together.low > 3 * (alone.high - alone.low)


@pytest.mark.parametrize(("name", "column"), [("squad", "context"), ("record", "passage"), ("drop", "passage")])
def test_questions_on_one_text_name_it(name, column):
    (spec,) = make_plan([f"task=superglue_qa/{name}", "model=tiny_llama", "data.max_eval_samples=3"], False, CONF).specs
    source, task = RowSource(**spec.task.evaluate_on), spec.task
    assert task.cluster == column
    asked, _ = source.questions("embedded", spec.settings.data, task.name, "evaluation", task.cluster)
    texts = {row[column] for row in source.rows("embedded", spec.settings.data)}
    assert len(asked) == 3 and all(question.cluster in texts for _, question in asked)
    row = evaluation_row(letter_tokenizer(), 0, asked[0][1], 16)
    assert row.told["cluster"] == cluster_name(asked[0][1].cluster)
    without, _ = source.questions("embedded", spec.settings.data, task.name, "evaluation", "absent")
    assert "cluster" not in evaluation_row(letter_tokenizer(), 0, without[0][1], 16).told


def test_targets_of_a_family_are_known_by_name():
    assert TargetRows([], clusters={"1abc": 4}).clusters.get("1abc") == 4
    assert TargetRows([]).clusters.get("1abc") is None
