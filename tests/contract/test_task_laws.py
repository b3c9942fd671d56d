"""Laws that every file of conf/task/ keeps."""

import pytest

from experiments.metrics import GLUE_METRICS
from lorta.api.task import Task
from lorta.config.choices import group_options
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.config.settings import RunSettings
from lorta.embedded import EMBEDDED_TASKS, embedded_rows
from lorta.planning.planner import make_plan

SUITES = ("glue", "commonsense", "superglue_qa")
TASKS = [name for name in group_options(CONF)["task"] if name not in SUITES]
GLUE_TASKS = [name for name in TASKS if name.startswith("glue/")]


def task(name: str) -> tuple[Task, RunSettings]:
    problems = Problems()
    (cell,) = compose_cells({"task": [name]}, CONF, problems)
    assert not problems
    return build(cell.config["task"]), RunSettings.model_validate(cell.config)


@pytest.mark.parametrize("name", TASKS)
def test_the_file_says_what_tables_need(name):
    found, _ = task(name)
    assert found.name == name
    assert found.protocol >= 1
    assert found.primary in found.score([])
    assert found.score([])[found.primary].reason


@pytest.mark.parametrize("name", [name for name in TASKS if name != "folding"])  # whose YAML names none
def test_a_primary_metric_that_the_task_lacks_is_refused_before_anything_runs(name):
    problem = make_plan([f"task={name}", "task.primary=auc"], False, CONF).problems[0]
    assert "task.primary=auc: task=" in problem


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_tables_show_the_first_of_a_glue_tasks_metrics(name):
    assert task(name)[0].primary == GLUE_METRICS[name.rpartition("/")[2]][0]


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_perfect_predictions_score_one_and_broken_ones_say_why(name):
    found, _ = task(name)
    references = [0.0, 2.5, 5.0, 1.0] if found.labels == 1 else [0, 1, 1, 0]
    perfect = [{"prediction": value, "reference": value} for value in references]
    broken = [row | {"prediction": float("nan")} for row in perfect]
    assert all(score.value == pytest.approx(1.0) for score in found.score(perfect).values())
    assert all(score.value is None and score.reason for score in found.score(broken).values())


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_embedded_rows_have_the_columns_or_a_sentence_says_there_are_none(name):
    found, settings = task(name)
    short = name.rpartition("/")[2]
    if short not in EMBEDDED_TASKS:
        with pytest.raises(ValueError, match="no embedded data"):
            found.plan_data(settings.data, "embedded")
        return
    plan = found.plan_data(settings.data, "embedded")
    assert plan.source == "embedded"
    for split in (found.train_split, found.evaluation_split):
        for row in embedded_rows(short, split):
            assert set(row) == {*found.columns, "label", "idx"}


def test_every_suite_names_existing_tasks():
    for suite in SUITES:
        problems = Problems()
        members = parse_overrides([f"task={suite}"], False, CONF, problems)["task"]
        assert problems == []
        assert set(members) <= set(TASKS)
