"""tune=lr: as many trials for every cell, on held-out training rows, and the rate that they choose."""

import math
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
from lorta.planning.lr_search import Results
from lorta.planning.lr_search import search as search_of
from lorta.planning.planner import make_plan
from lorta.planning.requests import waiting_sentences, with_requests
from lorta.records.sections import Failure, Score, Spread
from lorta.records.store import Store
from lorta.reporting.tables import to_markdown
from lorta.runner.execute import execute
from lorta.runner.record_builder import first_record
from tests.example_records import finished

COLLAPSED = Spread(predictions_std=None, labels_std=None, predicted_classes=1, label_classes=2, collapsed=True)
GRID = (0.000625, 0.0025, 0.01, 0.04)  # of lora.yaml's rate


@pytest.fixture
def plan(tmp_path):
    """Return plan(*words) of a tuned command line over one store."""

    def make(*words, multirun=True):
        places = [f"runtime.{name}={tmp_path}/{name}" for name in ("runs", "results", "cache")]
        given = [*words, "tune=lr", "trainer=smoke", *places]
        return make_plan(given, multirun, CONF), given

    return make


def end(spec, value, kind=None, collapsed=False):
    """Write the record of a trial: its score, or the kind of its failure."""
    first = first_record(spec)
    task = first.task
    score = {"evaluation": {task.metric_primary: Score(value=value, n=400, reason=None if value is not None else "no")}}
    own = {name: getattr(first, name) for name in ("run_id", "cell_id", "config_hash", "config", "adapter", "task")}
    own |= {"protocol": first.protocol, "batch": first.batch}
    spread = COLLAPSED if collapsed else None
    record = replace(finished(), **own, seed=spec.settings.seed, metrics=score, spread=spread)
    if kind:
        failure = Failure(kind=kind, type="Error", message="it broke", phase="train")
        record = replace(record, status="failed", failure=failure, metrics=None)
    Store(spec.settings.runtime.runs).write(record)


def tried(trial):
    """Return what a trial tries: its rate, the share of the steps and its seed."""
    trainer = trial.settings.trainer
    return trainer.learning_rate, trainer.stop_after or 1.0, trial.settings.seed


def search(plan, words, score):
    """End the trials of a command round by round; `score` gives (rate, share, seed) -> what `end` takes."""
    rounds, done = [], set()
    while open_ones := [trial for trial in plan(*words)[0].trials if trial.signature not in done]:
        rounds.append([tried(trial) for trial in open_ones])
        for trial in open_ones:
            outcome = score(*tried(trial))
            end(trial, **(outcome if isinstance(outcome, dict) else {"value": outcome}))
            done.add(trial.signature)
    return plan(*words)[0], rounds


def near(best):
    """Return a score that is the better the nearer a rate is to `best`."""
    return lambda rate, share, seed: 0.9 - abs(math.log(rate / best)) / 20


RTE = ("adapter=lora", "task=glue/rte")
WHOLE = ("tune.rungs=[1.0]", "tune.extensions=0")


def test_every_cell_begins_with_as_many_trials_and_seeds_share_them(plan):
    found, _ = plan("adapter=lora,vera,lorta,head_only", "rank=2,4", "task=glue/rte", "seed=0,1,2")
    assert (len(found.trials), len(found.waiting), len(found.specs)) == (7 * 8, 7 * 3, 0)  # head_only has no rank


def test_a_trial_is_scored_on_training_rows_and_the_grid_is_around_the_rate(plan):
    found, _ = plan(*RTE, "data.max_eval_samples=7")
    assert [tried(trial) for trial in found.trials] == [(rate, 0.25, seed) for rate in GRID for seed in (1000, 1001)]
    assert {trial.settings.data.holdout for trial in found.trials} == {400}
    assert {trial.settings.data.max_eval_samples for trial in found.trials} == {None}


def test_a_method_without_adapter_weights_searches_the_heads_rate(plan):
    found, _ = plan("adapter=head_only", "task=glue/rte")
    rates = {
        (trial.settings.trainer.learning_rate, trial.settings.trainer.head_learning_rate) for trial in found.trials
    }
    assert rates == {(None, rate) for rate in (0.000125, 0.0005, 0.002, 0.008)}


def test_the_worse_half_stops_and_the_rest_goes_on_from_its_checkpoints(plan):
    found, rounds = search(plan, RTE, near(0.0025))
    assert [len(of) for of in rounds] == [8, 4]
    assert {(rate, share) for rate, share, _ in rounds[1]} == {(0.0025, 0.5), (0.01, 0.5)}
    names = {tried(trial): trial.run_id for trial in found.trials}
    assert all(
        trial.continues == (names[tried(trial)[0], 0.25, trial.settings.seed] if tried(trial)[1] == 0.5 else None)
        for trial in found.trials
    )
    tuned = found.specs[0].tuned
    assert (tuned.grid, tuned.chosen, tuned.on_edge) == (GRID, 0.0025, False)
    assert tuned.stopped_after == (0.25, 0.5, 0.5, 0.25)
    assert (tuned.steps, tuned.most_steps) == (2 * 1.5 * 4, 2 * (1.5 + 3 * 0.5) * 4)  # two seeds, runs of 4 steps


def test_with_a_task_to_search_on_the_other_tasks_take_its_rate(plan):
    words = ("adapter=lora,vera", "rank=2", "task=glue/rte,glue/mrpc", "seed=0,1", "tune.task=glue/rte", *WHOLE)
    waiting, _ = plan(*words)
    assert {trial.settings.task["name"] for trial in waiting.trials} == {"glue/rte"}
    assert (len(waiting.trials), len(waiting.waiting)) == (2 * 8, 2 * 2 * 2)
    ended, _ = search(plan, words, near(0.0025))
    rates = {(spec.adapter.name, spec.settings.trainer.learning_rate) for spec in ended.specs}
    assert len(ended.specs) == 8 and len(rates) == 2  # one rate a method, on both of its tasks
    searched = {spec.settings.task["name"]: spec.tuned.task for spec in ended.specs}
    assert searched == {"glue/rte": None, "glue/mrpc": "glue/rte"}


def test_a_task_to_search_on_that_the_sweep_lacks_is_a_sentence(plan):
    refused, _ = plan(*RTE, "tune.task=glue/mrpc")
    assert refused.problems == (
        "tune.task=glue/mrpc: the sweep has no run of this task that can search the rate of adapter=lora; "
        "its tasks are glue/rte",
    )


def test_the_grid_goes_on_past_its_edge_until_the_best_is_inside(plan):
    found, rounds = search(plan, RTE, near(0.16))
    assert [sorted({rate for rate, _, _ in of}) for of in rounds] == [list(GRID), [0.16], [0.64], [0.04, 0.16]]
    tuned = found.specs[0].tuned
    assert (tuned.chosen, tuned.on_edge, tuned.grid) == (0.16, False, (*GRID, 0.16, 0.64))
    assert tuned.steps <= tuned.most_steps
    low = search(plan, ("adapter=vera", "task=glue/rte"), near(1e-6))[0].specs[0].tuned
    assert (low.on_edge, len(low.grid), low.steps <= low.most_steps) == (True, 4 + 3, True)  # bounded


def test_the_grid_goes_on_where_only_the_last_rung_ends_on_its_edge(plan):
    found, rounds = search(plan, RTE, lambda rate, share, seed: near(0.01 if share < 0.5 else 0.04)(rate, share, seed))
    assert [sorted({rate for rate, _, _ in of}) for of in rounds] == [list(GRID), [0.01, 0.04], [0.16]] or (
        sorted({rate for rate, _, _ in rounds[1]}) == [0.0025, 0.01]
    )
    assert not found.specs[0].tuned.on_edge


def test_the_chosen_rate_gives_the_run_that_typing_it_gives(plan):
    words = (*RTE, "seed=0,1")
    done, _ = search(plan, words, near(0.0025))
    typed = [word for word in plan(*words)[1] if word != "tune=lr"] + ["trainer.learning_rate=0.0025"]
    assert [spec.signature for spec in done.specs] == [spec.signature for spec in make_plan(typed, True, CONF).specs]
    assert done.specs[0].tuned.trials == tuple(trial.signature for trial in done.trials)
    assert done.waiting == ()


def test_the_lowest_loss_is_chosen_where_less_is_better(plan):
    words = ("adapter=lora", "task=instruct", *WHOLE)
    scores = dict(zip(sorted({tried(trial)[0] for trial in plan(*words)[0].trials}), (0.5, 0.4, 0.6, 0.7), strict=True))
    found, rounds = search(plan, words, lambda rate, share, seed: scores[rate])
    assert [len(of) for of in rounds] == [8]
    assert found.specs[0].tuned.chosen == 0.0025


def test_of_equal_rates_the_one_nearest_to_the_given_is_chosen(plan):
    found, _ = search(plan, (*RTE, *WHOLE, "tune.choice=best"), lambda rate, share, seed: 0.6 if rate == 0.01 else 0.7)
    assert found.specs[0].tuned.chosen == 0.0025  # not 0.04, as far away


@pytest.mark.parametrize(("choice", "expected"), [("best", 0.04), ("one_se", 0.01)])
def test_of_rates_that_cannot_be_told_apart_the_lowest_is_chosen(choice, expected, plan):
    means = {0.000625: 0.50, 0.0025: 0.70, 0.01: 0.79, 0.04: 0.80}  # pooled deviation 0.0283, standard error 0.02

    def score(rate, share, seed):
        return means[rate] + (0.02 if seed == 1000 else -0.02)

    found, _ = search(plan, (*RTE, *WHOLE, f"tune.choice={choice}"), score)
    tuned = found.specs[0].tuned
    assert (tuned.chosen, tuned.choice) == (expected, choice)


def test_a_rate_that_collapsed_has_no_say_in_how_well_others_are_known(plan):
    def score(rate, share, seed):  # with 0.04's deviation, 0.0025 would be alike
        if rate == 0.04:
            return {"value": 0.9 if seed == 1000 else 0.0, "collapsed": True}
        return 0.7 if rate == 0.01 else 0.6

    found, _ = search(plan, (*RTE, *WHOLE), score)
    assert found.specs[0].tuned.chosen == 0.01


def test_the_mean_over_the_trials_seeds_decides(plan):
    words = (*RTE, "tune.factors=[1.0,4.0]", *WHOLE)
    score = lambda rate, share, seed: (0.9 if seed == 1000 else 0.1) if rate == 0.01 else 0.6  # noqa: E731
    found, _ = search(plan, (*words, "tune.choice=best"), score)
    assert found.specs[0].tuned.chosen == 0.04


def test_a_rate_that_diverges_is_a_spent_trial_and_never_chosen(plan):
    diverged = {"value": 0.0, "kind": "nan"}
    found, rounds = search(plan, RTE, lambda rate, share, seed: diverged if rate > 0.01 else 0.5 + 10 * rate)
    tuned = found.specs[0].tuned
    assert (tuned.chosen, tuned.scores[-1], tuned.on_edge) == (0.01, None, False)
    assert [len(of) for of in rounds] == [8, 4]


def test_a_rate_that_collapses_on_one_seed_is_not_chosen_before_one_that_does_not(plan):
    def score(rate, share, seed):
        return {"value": 0.9, "collapsed": True} if rate == 0.01 and seed == 1001 else 0.5 + rate / 10

    found, _ = search(plan, RTE, score)
    tuned = found.specs[0].tuned
    assert tuned.chosen != 0.01
    assert tuned.collapsed[tuned.grid.index(0.01)]


def test_a_search_whose_rates_all_collapse_says_so(plan):
    found, _ = search(plan, (*RTE, *WHOLE), lambda rate, share, seed: {"value": 0.5, "collapsed": True})
    (spec,) = found.specs
    assert all(spec.tuned.collapsed)
    text = to_markdown(summarise([with_requests(finished(), spec)]), [])
    assert "In 1 of 1 searches every rate collapsed to (nearly) one answer" in text
    assert "every rate of its search collapsed" in text


def test_a_trial_that_broke_otherwise_leaves_its_cell_waiting(plan):
    found, _ = plan(*RTE)
    for number, trial in enumerate(found.trials):
        end(trial, 0.5, "oom" if number == 3 else None)
    again, _ = plan(*RTE)
    assert again.specs == ()
    assert waiting_sentences(again) == [
        "waiting: 1 run of lora r=8 glue/rte: 1 of 8 learning-rate trials have no result yet"
    ]


def test_no_rate_is_chosen_from_trials_without_a_score(plan):
    found, rounds = search(plan, ("adapter=lora", "task=glue/stsb"), lambda rate, share, seed: None)
    assert "no learning-rate trial has a score" in waiting_sentences(found)[0]
    assert len(rounds) == 1 + 3  # lower rates were tried


def test_where_no_rate_has_a_score_lower_ones_are_tried(plan):
    def score(rate, share, seed):
        return {"value": 0.8} if rate < 5e-4 else {"value": None if seed == 1000 else 0.9}

    found, rounds = search(plan, ("adapter=lora", "task=glue/stsb", "tune.rungs=[1.0]", "tune.choice=best"), score)
    assert [sorted({rate for rate, _, _ in of}) for of in rounds] == [list(GRID), [0.00015625], [3.90625e-05]]
    assert found.specs[0].tuned.chosen == 0.00015625
    assert not found.specs[0].tuned.on_edge


def test_trials_have_no_seed_of_the_runs(plan):
    for words in (("seed=1000",), ("seeds=auto", "seed=995", "compare=best", "adapter=vera,lora")):
        given = [word for word in RTE if words[-1:] != ("adapter=vera,lora",) or not word.startswith("adapter")]
        (problem,) = plan(*given, *words)[0].problems
        assert "give the trials seeds of their own" in problem


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
        ("tune.seeds=[7]", "two seeds or more"),
        ("tune.rungs=[0.5,0.25]", "rungs that rise"),
        ("tune.rungs=[]", "rungs that rise"),
        ("tune.rungs=[1.5]", "tune.rungs"),
        ("tune.extensions=-1", "tune.extensions"),
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


@pytest.mark.parametrize("choice", ["best", "one_se"])
def test_trials_stand_in_no_table_and_a_rate_on_the_edge_is_marked(choice, plan):
    found, _ = search(plan, (*RTE, "tune.extensions=0", f"tune.choice={choice}"), near(0.04))
    (spec,) = found.specs
    trials = [Store(spec.settings.runtime.runs).read(trial.signature) for trial in found.trials]
    assert summarise(trials) == ()
    text = to_markdown(summarise([*trials, with_requests(finished(), spec)]), [])
    assert "lora r=4, glue/rte: its learning rate 0.04 is the highest tried" in text
    assert "12 trials each, scored on 400 rows held out from the training data." in text
    assert ("The lowest rate within one standard error of the best one was chosen." in text) == (choice == "one_se")
    assert "Every search had a budget of 12 optimizer steps and used 12. 1 of 1 chosen learning rates" in text
    assert "(tuned)" in text


def test_a_report_says_how_many_trials_it_leaves_out(plan):
    found, _ = search(plan, RTE, near(0.0025))
    trials = [Store(trial.settings.runtime.runs).read(trial.signature) for trial in found.trials]
    assert (
        "- 12 learning-rate trials, scored on rows held out from the training data; no table contains them"
        in to_markdown((), trials)
    )


def test_a_command_searches_runs_and_then_has_nothing_to_do(plan, capsys):
    words = (
        "adapter=lora",
        "rank=2",
        "task=glue/rte",
        "tune.factors=[1.0,4.0]",
        "runtime.workers=0",
        "tune.extensions=0",
    )
    _, given = plan(*words)
    assert main(given) == 0
    (spec,) = plan(*words)[0].specs
    store = Store(spec.settings.runtime.runs)
    record = store.read(spec.signature)
    assert record.protocol.tuned
    assert record.tuning.chosen == record.adapter.learning_rate
    assert record.task.splits["train"].rows == 1000
    trial = store.read(record.tuning.trials[0])
    assert {use: split.rows for use, split in trial.task.splits.items()} == {"train": 600, "evaluation": 400}
    assert list(store.root.glob("*/checkpoint")) == []
    capsys.readouterr()
    assert main(given) == 0
    assert "4 trials of learning rates so far: 0 to do, 4 done" in capsys.readouterr().out
    assert lorta(["status", *given]) == 0
    assert "5 runs: 5 done" in capsys.readouterr().out


def test_a_trial_that_goes_on_from_another_gives_what_it_gives_alone_bit_by_bit(plan, tmp_path):
    words = ("adapter=lora", "rank=2", "task=glue/rte", "tune.factors=[1.0,2.0,4.0]", "tune.rungs=[0.5,1.0]")
    stopped = plan(*words)[0].trials[0]
    of = search_of(plan(*words)[0].waiting[0][0])
    results = Results()
    results.add([stopped])
    whole = of.trials(tried(stopped)[0], 1, results)[0]
    assert (whole.continues, whole.settings.trainer.stop_after) == (stopped.run_id, None)
    folder = Store(tmp_path / "runs").folder(stopped.run_id) / "checkpoint"
    assert execute(stopped).status == "success"
    assert [path.name for path in folder.iterdir()] == ["2"]  # of 4 steps
    continued = execute(whole)
    assert not folder.exists()
    elsewhere = whole.settings.runtime.model_copy(update={"runs": f"{tmp_path}/again"})
    alone = execute(replace(whole, settings=whole.settings.model_copy(update={"runtime": elsewhere})))
    assert (continued.resumed_from_step, alone.resumed_from_step) == (2, None)
    assert continued.predictions_file == alone.predictions_file
    assert continued.history_file == alone.history_file


def test_the_state_of_a_trial_says_what_it_tries(plan, capsys, tmp_path):
    found, _ = plan("adapter=lora", "task=glue/rte")
    end(found.trials[1], 0.0, "oom")
    assert lorta(["status", "--runs", f"{tmp_path}/runs"]) == 0
    assert "lora r=8 glue/rte trial 0.000625 seed 1001: oom" in capsys.readouterr().out
