"""seeds=auto: which seeds a plan has before and after results, and when it stops."""

from dataclasses import replace

import numpy as np
import pytest

from lorta.cli import run as command
from lorta.cli.main import main as lorta
from lorta.config.places import CONF
from lorta.planning.planner import Plan, make_plan
from lorta.planning.questions import label
from lorta.records.sections import Score
from lorta.records.store import Store
from lorta.runner.record_builder import first_record
from lorta.status.seeds import state, with_seeds_needed
from tests.example_records import finished

COMPARE = "compare={method:lorta,with:lora,margin:1.0}"
WORDS = ("adapter=lora,vera,lorta", "rank=2", "task=glue/rte,glue/mrpc", "trainer=smoke", "seeds=auto")


def words(tmp_path, *given: str) -> list[str]:
    return [*WORDS, *given, f"runtime.runs={tmp_path}/runs", f"runtime.results={tmp_path}/results"]


def planned(tmp_path, *given: str) -> Plan:
    plan = make_plan(words(tmp_path, *(given or (COMPARE,))), True, CONF)
    assert plan.problems == ()
    return with_seeds_needed(plan)


def seeds_of(plan: Plan, task: str = "glue/rte") -> dict[str, int]:
    counts: dict[str, int] = {}
    for spec in plan.specs:
        if spec.settings.task["name"] == task:
            counts[label(spec)] = counts.get(label(spec), 0) + 1
    return counts


def end(spec, value: float) -> None:
    """Write the record of a finished run."""
    first = first_record(spec)
    own = {name: getattr(first, name) for name in ("run_id", "cell_id", "config_hash", "config", "adapter", "task")}
    score = {"evaluation": {first.task.metric_primary: Score(value=value, n=277)}}
    record = replace(finished(), **own, seed=spec.settings.seed, metrics=score, questions=spec.questions)
    Store(spec.settings.runtime.runs).write(record)


def end_all(plan: Plan, spread: float) -> None:
    """End every run that has not ended; LoRTA is LoRA, and seeds of both differ by `spread`."""
    store = Store(plan.specs[0].settings.runtime.runs)
    for spec in plan.specs:
        if not store.finished(spec.run_id):
            draw = np.random.default_rng([spec.settings.seed, len(label(spec))]).normal(0, spread)
            end(spec, 0.8 + draw)


def test_a_plan_without_results_has_the_least_number_of_seeds_of_every_method(tmp_path):
    assert seeds_of(planned(tmp_path)) == {"lora r=2": 3, "vera r=2": 3, "lorta r=2": 3}
    later = planned(tmp_path, COMPARE, "seed=5", "seeds.least=2")
    assert {spec.settings.seed for spec in later.specs} == {5, 6}
    (questions,) = {spec.questions for spec in later.specs}
    assert questions[0].seeds == (2, 10)


def test_seeds_are_those_that_typing_them_gives(tmp_path):
    typed = [word for word in words(tmp_path, COMPARE, "seed=0,1,2") if not word.startswith("seeds")]
    assert {spec.signature for spec in planned(tmp_path).specs} == {
        spec.signature for spec in make_plan(typed, True, CONF).specs
    }


def test_a_decided_question_adds_nothing(tmp_path):
    end_all(planned(tmp_path), spread=0.0005)
    again = planned(tmp_path)
    assert seeds_of(again) == {"lora r=2": 3, "vera r=2": 3, "lorta r=2": 3}
    (of,) = state(again)[1][0]
    assert of.answer.verdict == "equivalent"


def test_an_open_question_adds_seeds_of_its_methods_until_the_most(tmp_path):
    rounds: list[dict[str, int]] = []
    for _ in range(8):
        plan = planned(tmp_path)
        rounds.append(seeds_of(plan))
        end_all(plan, spread=0.02)
    assert rounds[0]["lorta r=2"] == 3
    assert rounds[1]["lorta r=2"] > 3
    assert {of["vera r=2"] for of in rounds} == {3}
    assert [of["lora r=2"] for of in rounds] == [of["lorta r=2"] for of in rounds]
    assert rounds[-1] == rounds[-2]
    assert rounds[-1]["lorta r=2"] == 10


def test_a_question_about_one_task_adds_seeds_there_alone(tmp_path):
    compare = "compare={method:lorta,with:lora,margin:1.0,task:glue/mrpc}"
    end_all(planned(tmp_path, compare), spread=0.02)
    again = planned(tmp_path, compare)
    assert seeds_of(again)["lorta r=2"] == 3
    assert seeds_of(again, "glue/mrpc")["lorta r=2"] > 3


def test_a_question_waits_for_every_run_that_is_planned_for_it(tmp_path):
    plan = planned(tmp_path)
    end_all(replace(plan, specs=plan.specs[:-1]), spread=0.02)
    assert len(planned(tmp_path).specs) == len(plan.specs)


def test_the_command_goes_on_round_by_round_and_runs_nothing_twice(tmp_path, monkeypatch, capsys):
    started: list[str] = []

    def run(todo, parallel, console):
        for spec in todo:
            started.append(spec.run_id)
            if label(spec) != "vera r=2":  # whose runs fail
                draw = np.random.default_rng([spec.settings.seed, len(label(spec))]).normal(0, 0.02)
                end(spec, 0.8 + draw)
        return 0

    monkeypatch.setattr(command, "_run", run)
    given = words(tmp_path, COMPARE, "seeds.most=6", "task=glue/rte")
    given.remove("task=glue/rte,glue/mrpc")
    assert command.main(["-m", *given]) == 1
    assert len(started) == len(set(started)) == 6 + 6 + 3
    out = capsys.readouterr().out
    assert "lorta r=2 is undecided against lora r=2 on glue/rte: difference " in out
    assert "undecided with the most seeds, 6" in out
    assert lorta(["plan", "-m", *given]) == 0
    assert "lorta r=2 is undecided against lora r=2 on glue/rte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "there is none: state one"),
        (("seed=0,1", COMPARE), "several values of seed contradict"),
        (("seeds.least=1", COMPARE), "2 <= least <= most <= 100"),
        (("seeds.least=4", "seeds.most=3", COMPARE), "2 <= least <= most <= 100"),
        (("seeds.most=101", COMPARE), "2 <= least <= most <= 100"),
        (("seeds.most=many", COMPARE), "seeds.most='many'"),
    ],
)
def test_seeds_that_cannot_be_added_are_refused(given, said, tmp_path):
    problems = make_plan(words(tmp_path, *given), True, CONF).problems
    assert any(said in problem for problem in problems), problems


def test_numbers_of_seeds_without_the_rule_are_refused(tmp_path):
    given = [word for word in words(tmp_path, "seeds.least=3") if word != "seeds=auto"]
    assert "have no effect without seeds=auto" in make_plan(given, True, CONF).problems[0]


def test_what_is_typed_replaces_the_seeds_of_a_recipe(tmp_path):
    given = ["experiment=tiny/glue_base", "adapter=lora,lorta", "task=glue/rte", "seeds=auto", "compare=best"]
    plan = make_plan([*given, f"runtime.runs={tmp_path}"], True, CONF)
    assert plan.problems == ()
    assert {spec.settings.seed for spec in plan.specs} == {0, 1, 2}
