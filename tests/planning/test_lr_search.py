"""tune=lr: as many trials for every cell, on held-out training rows, and the rate that they choose."""

from dataclasses import replace

import pytest
from datasets import Dataset

from lorta.analysis.summary import summarise
from lorta.api.holdout import load_splits
from lorta.api.task import DataSplits
from lorta.cli.main import main as lorta
from lorta.cli.run import main
from lorta.config.identity import identity
from lorta.config.places import CONF
from lorta.config.settings import DataSettings
from lorta.planning.planner import make_plan
from lorta.planning.requests import waiting_sentences, with_requests
from lorta.records.sections import Failure, Score
from lorta.records.store import Store
from lorta.reporting.tables import to_markdown
from lorta.runner.record_builder import first_record
from tests.example_records import finished

GRID = (0.000625, 0.0025, 0.01, 0.04)  # of lora.yaml's rate


@pytest.fixture
def plan(tmp_path):
    """Return plan(*words) of a tuned command line over one store."""

    def make(*words, multirun=True):
        places = [f"runtime.{name}={tmp_path}/{name}" for name in ("runs", "results", "cache")]
        given = [*words, "tune=lr", "trainer=smoke", *places]
        return make_plan(given, multirun, CONF), given

    return make


def end(spec, value, kind=None):
    """Write the record of a trial: its score, or the kind of its failure."""
    first = first_record(spec)
    task = first.task
    score = {"evaluation": {task.metric_primary: Score(value=value, n=400, reason=None if value is not None else "no")}}
    own = {name: getattr(first, name) for name in ("run_id", "cell_id", "config_hash", "config", "adapter", "task")}
    record = replace(finished(), **own, seed=spec.settings.seed, metrics=score)
    if kind:
        failure = Failure(kind=kind, type="Error", message="it broke", phase="train")
        record = replace(record, status="failed", failure=failure, metrics=None)
    Store(spec.settings.runtime.runs).write(record)


def end_all(plan, scores):
    for trial, value in zip(plan.trials, scores, strict=True):
        end(trial, value)


def test_every_cell_has_as_many_trials_and_seeds_share_them(plan):
    found, _ = plan("adapter=lora,vera,lorta,head_only", "rank=2,4", "task=glue/rte", "seed=0,1,2")
    assert (len(found.trials), len(found.waiting), len(found.specs)) == (7 * 4, 7 * 3, 0)  # head_only has no rank


def test_a_trial_is_scored_on_training_rows_and_the_grid_is_around_the_rate(plan):
    found, _ = plan("adapter=lora", "task=glue/rte", "data.max_eval_samples=7")
    assert tuple(trial.settings.trainer.learning_rate for trial in found.trials) == GRID
    assert {trial.settings.data.holdout for trial in found.trials} == {400}
    assert {trial.settings.data.max_eval_samples for trial in found.trials} == {None}


def test_a_method_without_adapter_weights_searches_the_heads_rate(plan):
    found, _ = plan("adapter=head_only", "task=glue/rte")
    rates = {
        (trial.settings.trainer.learning_rate, trial.settings.trainer.head_learning_rate) for trial in found.trials
    }
    assert rates == {(None, rate) for rate in (0.000125, 0.0005, 0.002, 0.008)}


def test_the_chosen_rate_gives_the_run_that_typing_it_gives(plan):
    words = ("adapter=lora", "task=glue/rte", "seed=0,1")
    found, given = plan(*words)
    end_all(found, [0.5, 0.9, 0.6, 0.7])
    done, _ = plan(*words)
    typed = [word for word in given if word != "tune=lr"] + ["trainer.learning_rate=0.0025"]
    assert [spec.signature for spec in done.specs] == [spec.signature for spec in make_plan(typed, True, CONF).specs]
    tuned = done.specs[0].tuned
    assert (tuned.grid, tuned.scores, tuned.chosen, tuned.on_edge) == (GRID, (0.5, 0.9, 0.6, 0.7), 0.0025, False)
    assert tuned.trials == tuple(trial.signature for trial in found.trials)
    assert done.waiting == ()


def test_the_lowest_loss_is_chosen_where_less_is_better(plan):
    found, _ = plan("adapter=lora", "task=instruct")
    end_all(found, [0.5, 0.4, 0.6, 0.7])
    assert plan("adapter=lora", "task=instruct")[0].specs[0].tuned.chosen == 0.0025


def test_of_equal_rates_the_one_nearest_to_the_given_is_chosen(plan):
    found, _ = plan("adapter=lora", "task=glue/rte")
    end_all(found, [0.7, 0.7, 0.6, 0.7])
    assert plan("adapter=lora", "task=glue/rte")[0].specs[0].tuned.chosen == 0.0025  # not 0.04, as far away


def test_the_mean_over_the_trials_seeds_decides(plan):
    words = ("adapter=lora", "task=glue/rte", "tune.seeds=[0,1]", "tune.factors=[1.0,4.0]")
    found, _ = plan(*words)
    end_all(found, [0.9, 0.1, 0.6, 0.6])
    assert plan(*words)[0].specs[0].tuned.chosen == 0.04


def test_a_rate_that_diverges_is_a_spent_trial_and_never_chosen(plan):
    found, _ = plan("adapter=lora", "task=glue/rte")
    for trial, (value, kind) in zip(found.trials, [(0.5, None), (0.6, None), (0.7, None), (0.0, "nan")], strict=True):
        end(trial, value, kind)
    tuned = plan("adapter=lora", "task=glue/rte")[0].specs[0].tuned
    assert (tuned.chosen, tuned.scores[-1], tuned.on_edge) == (0.01, None, False)


def test_a_trial_that_broke_otherwise_leaves_its_cell_waiting(plan):
    found, _ = plan("adapter=lora", "task=glue/rte")
    for trial, kind in zip(found.trials, [None, None, None, "oom"], strict=True):
        end(trial, 0.5, kind)
    again, _ = plan("adapter=lora", "task=glue/rte")
    assert again.specs == ()
    assert waiting_sentences(again) == [
        "waiting: 1 run of lora r=8 glue/rte: 1 of 4 learning-rate trials have no result yet"
    ]


def test_no_rate_is_chosen_from_trials_without_a_score(plan):
    found, _ = plan("adapter=lora", "task=glue/stsb")
    end_all(found, [None] * 4)
    assert "no learning-rate trial has a score" in waiting_sentences(plan("adapter=lora", "task=glue/stsb")[0])[0]


def test_a_budget_is_solved_before_its_rate_is_searched(plan):
    found, _ = plan("adapter=lora", "task=glue/rte", "budget=5k")
    assert {trial.settings.rank for trial in found.trials} == {3}
    assert found.trials[0].budgets[0].asked == 5000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trainer.learning_rate=0.1", "the trials choose the learning rate"),
        ("adapter=head_only trainer.head_learning_rate=0.1", "trainer.head_learning_rate contradict"),
        ("data.holdout=9", "leave one out"),
        ("task=gsm8k", "task=gsm8k cannot score rows of its training split"),
        ("task=folding", "task=folding cannot score rows of its training split"),
        ("task=instruct task.loss_on=all", "task=instruct cannot score rows"),
        ("tune.factors=[1.0]", "two factors or more"),
        ("tune.factors=[1.0,-2.0]", "tune.factors"),
        ("tune.holdout=0", "tune.holdout"),
    ],
)
def test_a_search_that_cannot_be_is_refused(words, said, plan):
    problems = plan(*words.split())[0].problems
    assert any(said in problem for problem in problems), problems


def test_runs_without_a_search_keep_their_identity():
    (spec,) = make_plan(["adapter=lora", "task=glue/rte"], False, CONF).specs
    assert "holdout" not in identity(spec.config)["data"]
    assert not {"tune", "budget"} & spec.config.keys()


class Numbers:
    """A task whose training rows are numbers."""

    name = "numbers"

    def load_data(self, plan, data, tokenizer, cache):
        rows = list(range(100))[: data.max_train_samples]
        return DataSplits(Dataset.from_dict({"row": rows}), Dataset.from_dict({"row": [-1]}))


def held_out(**changes):
    data = DataSettings(
        source="local", root=None, max_train_samples=None, max_eval_samples=None, max_length=8, holdout=20
    )
    return load_splits(Numbers(), None, data.model_copy(update=changes), None, None)


def test_held_out_rows_are_not_trained_on():
    splits = held_out()
    assert len(splits.evaluation) == 20
    assert sorted([*splits.train["row"], *splits.evaluation["row"]]) == list(range(100))


def test_a_cap_on_training_rows_is_kept_beside_the_held_out_ones():
    splits = held_out(max_train_samples=30)
    assert (len(splits.train), len(splits.evaluation)) == (30, 20)


def test_more_than_half_of_the_rows_cannot_be_held_out():
    with pytest.raises(ValueError, match="more than half of 100 training rows"):
        held_out(holdout=51)


def test_trials_stand_in_no_table_and_a_rate_on_the_edge_is_marked(plan):
    found, _ = plan("adapter=lora", "task=glue/rte")
    end_all(found, [0.5, 0.6, 0.7, 0.8])
    (spec,) = plan("adapter=lora", "task=glue/rte")[0].specs
    trials = [Store(spec.settings.runtime.runs).read(trial.signature) for trial in found.trials]
    assert summarise(trials) == ()
    text = to_markdown(summarise([*trials, with_requests(finished(), spec)]), [])
    assert "lora r=4, glue/rte: its learning rate 0.04 is the highest tried" in text
    assert "4 trials each, scored on 400 rows held out from the training data. 1 of 1 chosen learning rates" in text
    assert "(tuned)" in text


def test_a_report_says_how_many_trials_it_leaves_out(plan):
    found, _ = plan("adapter=lora", "task=glue/rte")
    end_all(found, [0.5, 0.6, 0.7, 0.8])
    trials = [Store(trial.settings.runtime.runs).read(trial.signature) for trial in found.trials]
    assert (
        "- 4 learning-rate trials, scored on rows held out from the training data; no table contains them"
        in to_markdown((), trials)
    )


def test_a_command_searches_runs_and_then_has_nothing_to_do(plan, capsys):
    words = ("adapter=lora", "rank=2", "task=glue/rte", "tune.factors=[1.0,4.0]", "runtime.workers=0")
    _, given = plan(*words)
    assert main(given) == 0
    (spec,) = plan(*words)[0].specs
    record = Store(spec.settings.runtime.runs).read(spec.signature)
    assert record.protocol.tuned
    assert record.tuning.chosen == record.adapter.learning_rate
    assert record.task.splits["train"].rows == 1000
    trial = Store(spec.settings.runtime.runs).read(record.tuning.trials[0])
    assert {use: split.rows for use, split in trial.task.splits.items()} == {"train": 600, "evaluation": 400}
    capsys.readouterr()
    assert main(given) == 0
    assert "2 trials of learning rates: 0 to do, 2 done" in capsys.readouterr().out
    assert lorta(["status", *given]) == 0
    assert "3 runs: 3 done" in capsys.readouterr().out


def test_the_state_of_a_trial_says_what_it_tries(plan, capsys, tmp_path):
    found, _ = plan("adapter=lora", "task=glue/rte")
    end(found.trials[1], 0.0, "oom")
    assert lorta(["status", "--runs", f"{tmp_path}/runs"]) == 0
    assert "lora r=8 glue/rte trial 0.0025 seed 0: oom" in capsys.readouterr().out
