"""`compare`: which comparisons a command line means, and that they move no run's identity."""

import pytest

from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.planning.requests import with_requests
from lorta.records.sections import Question, check_margin
from lorta.runner.record_builder import first_record


def plan(*words: str, tmp_path):
    return make_plan(["task=glue/rte,glue/sst2", f"runtime.runs={tmp_path}", *words], True, CONF)


def asked(*words: str, tmp_path) -> set[tuple[object, ...]]:
    found = plan(*words, tmp_path=tmp_path)
    assert found.problems == ()
    (questions,) = {spec.questions for spec in found.specs}
    return {(of.method, of.reference, of.margin, of.task) for of in questions}


def test_a_name_without_a_size_is_every_size_and_a_budget_names_the_size_that_it_gave(tmp_path):
    words = ("adapter=lora,lorta", "rank=4,8", 'compare={method:lorta,with:"lora r=8",margin:1}')
    assert asked(*words, tmp_path=tmp_path) == {
        ("lorta r=4", "lora r=8", 1.0, None),
        ("lorta r=8", "lora r=8", 1.0, None),
    }
    words = ("adapter=lora,lorta", "budget=2k,4k", 'compare={method:"lorta budget=2k",with:"lora budget=4k"}')
    assert asked(*words, tmp_path=tmp_path) == {("lorta r=15", "lora r=3", None, None)}


def test_all_is_every_other_method_and_best_every_pair(tmp_path):
    every = asked("adapter=lora,vera,lorta", "compare={method:lorta,with:all,task:glue/rte}", tmp_path=tmp_path)
    assert every == {("lorta r=8", "lora r=8", None, "glue/rte"), ("lorta r=8", "vera r=8", None, "glue/rte")}
    pairs = asked("adapter=lora,vera,lorta", "compare=best", tmp_path=tmp_path)
    assert {frozenset(pair[:2]) for pair in pairs} == {
        frozenset({"lora r=8", "vera r=8"}),
        frozenset({"lora r=8", "lorta r=8"}),
        frozenset({"vera r=8", "lorta r=8"}),
    }


def test_a_question_is_in_the_record_and_in_no_identity(tmp_path):
    plain = plan("adapter=lora,lorta", tmp_path=tmp_path).specs
    asking = plan("adapter=lora,lorta", "compare={method:lorta,with:lora,margin:0.5}", tmp_path=tmp_path).specs
    assert [spec.signature for spec in plain] == [spec.signature for spec in asking]
    record = first_record(asking[0])
    assert record.questions == (Question(method="lorta r=8", reference="lora r=8", margin=0.5),)
    assert with_requests(record, plain[0]).questions == ()  # another command's table does not answer it


def test_trials_of_a_search_answer_no_question(tmp_path):
    trials = plan("adapter=lora,lorta", "tune=lr", "compare=best", tmp_path=tmp_path).trials
    assert {trial.questions for trial in trials} == {()}


def test_every_comparison_that_cannot_be_is_said_at_once(tmp_path):
    words = ("adapter=lora,lorta", "rank=4,8", "compare=[{method:lorta,with:lora},{method:vera,with:lora},7]")
    problems = plan(*words, tmp_path=tmp_path).problems
    assert len(problems) == 3
    assert "name one of lora r=4, lora r=8, or all" in problems[0]
    assert "vera: the sweep has no such method; it has lora r=4" in problems[1]
    assert "got 7" in problems[2]


@pytest.mark.parametrize("margin", [0, 0.0, -1.0, "1%", float("nan"), float("inf"), True, None])
def test_a_margin_is_a_number_of_points_above_zero(margin):
    with pytest.raises(ValueError, match=r"^a margin must be a number of points above 0, such as 1\.0, got"):
        check_margin(margin)
    if margin is not None:
        with pytest.raises(ValueError, match="a margin must be"):
            Question(method="lorta", reference="lora r=8", margin=margin)


def test_a_method_is_not_compared_with_itself():
    with pytest.raises(ValueError, match="needs two different methods, got lorta twice"):
        Question(method="lorta", reference="lorta", margin=1.0)
