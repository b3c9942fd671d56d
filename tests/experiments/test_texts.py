"""Rows of text from files: checked line by line, filtered and held out as the YAML says."""

import gzip
import json

import pytest

from experiments.dpo import DpoTask
from experiments.instruct import InstructTask
from experiments.texts import TextSource, held_out, read_texts
from lorta.config.compose import compose_cells
from lorta.config.instantiate import build
from lorta.config.overrides import Problems
from lorta.config.places import CONF
from lorta.config.settings import DataSettings

INSTRUCT = {"instruction": "Say it.", "input": "", "output": "it"}
PAIR = {"prompt": "Say it.", "chosen": "it", "rejected": "that"}
ORCA = {"system": "be kind", "input": "why", "chosen": "so", "rejected": "no", "status": "unchanged"}


def task(name, *overrides):
    problems = Problems()
    values = {"task": [name], "adapter": ["lora"]} | {key: [value] for key, value in overrides}
    (cell,) = compose_cells(values, CONF, problems)
    assert not problems
    return build(cell.config["task"])


def settings(root, **changes):
    values = {"source": "auto", "root": root and str(root), "max_train_samples": None, "max_eval_samples": None}
    return DataSettings(**values | {"max_length": 64} | changes)


def write(folder, rows, split="train", ending=".jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if ending.endswith(".gz") else open
    with opener(folder / f"{split}{ending}", "wt") as stream:
        stream.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def plan(found, folder, train, validation, root):
    write(folder, train)
    write(folder, validation, "validation", ".jsonl.gz")
    return found.plan_data(settings(root), "embedded")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"instruction": "Say it."}, "line 2: column output is missing; it has instruction"),
        (INSTRUCT | {"output": 3}, "line 2: column output must be text"),
        (INSTRUCT | {"input": ["x"]}, "line 2: column input must be text"),
        (INSTRUCT | {"instruction": " "}, "line 2: column instruction is empty"),
        ([1], "line 2: a JSON object is needed, found list"),
        ('{"instruction": \n', "line 2: not JSON"),
    ],
)
def test_a_bad_instruction_is_named_by_file_line_and_column(tmp_path, row, sentence):
    with pytest.raises(ValueError, match=r"train\.jsonl") as error:
        plan(task("instruct"), tmp_path / "instruct" / "alpaca", [INSTRUCT, row], [INSTRUCT], tmp_path)
    assert sentence in str(error.value)


@pytest.mark.parametrize("extra", [{"output": ""}, {"input": None}])
def test_an_empty_output_and_a_missing_input_are_rows_like_others(tmp_path, extra):
    found = plan(task("instruct"), tmp_path / "instruct" / "alpaca", [INSTRUCT | extra], [INSTRUCT], tmp_path)
    assert (found.source, set(found.fingerprints)) == ("local", {"train", "evaluation"})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (PAIR | {"rejected": "it"}, "line 2: chosen and rejected are the same text"),
        (PAIR | {"chosen": ""}, "line 2: column chosen is empty"),
        ({"chosen": "a", "rejected": "b"}, "line 2: column prompt is missing; it has chosen, rejected"),
        (PAIR | {"system": 1}, "line 2: column system must be text"),
    ],
)
def test_a_bad_pair_is_named_by_file_line_and_column(tmp_path, row, sentence):
    with pytest.raises(ValueError, match=r"train\.jsonl") as error:
        plan(task("dpo"), tmp_path / "preference" / "alpaca_eval", [PAIR, row], [PAIR], tmp_path)
    assert sentence in str(error.value)


@pytest.mark.parametrize("column", ["prompt", "question", "input"])
def test_the_question_may_stand_in_the_columns_of_three_data_sets(column):
    assert task("dpo").problem({column: "why", "system": "be kind", "chosen": "so", "rejected": "no"}) is None


def test_the_release_keeps_no_ties_low_scores_or_gsm8k(tmp_path):
    rows = [
        ORCA | {"chosen_score": score, "in_gsm8k_train": maths, "status": status, "idx": number}
        for number, (score, maths, status) in enumerate(
            [
                (9, False, "unchanged"),
                (9, False, "tie"),
                (7, False, "swapped"),
                (9, True, "swapped"),
                (None, False, "x"),
            ]
        )
    ]
    release = task("dpo/release")
    found = plan(release, tmp_path / "preference" / "orca", rows, rows, tmp_path)
    kept = read_texts(found, TextSource(**release.source), settings(tmp_path), "train", release)[0]
    assert [row["idx"] for row in kept] == [0]


def test_a_row_that_the_condition_leaves_out_need_not_be_in_order(tmp_path):
    folder, tie = tmp_path / "preference" / "alpaca_eval", PAIR | {"rejected": "it"}
    dpo = task("dpo", ("task.source.keep", "chosen != rejected"))
    found = plan(dpo, folder, [PAIR, tie], [PAIR], tmp_path)
    assert read_texts(found, TextSource(**dpo.source), settings(tmp_path), "train", dpo)[0] == [PAIR]
    with pytest.raises(ValueError, match=r"train\.jsonl, line 3: column rejected must be text"):
        plan(dpo, folder, [PAIR, tie, PAIR | {"rejected": None}], [PAIR], tmp_path)


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("score > 3", "line 1: .*keep='score > 3'.*columns: prompt"),
        ("chosen == 'x'", "keeps none of 1"),
        ("chosen ==", "line 1: .*keep='chosen =='"),
        ("1 / 0", "line 1: .*keep='1 / 0': .*zero"),
        ("prompt.nothing", "line 1: .*keep='prompt.nothing'"),
    ],
)
def test_a_condition_that_cannot_be_met_is_a_sentence(tmp_path, condition, sentence):
    dpo = task("dpo", ("task.source.keep", condition))
    with pytest.raises(ValueError, match=rf"train\.jsonl.*{sentence}"):
        plan(dpo, tmp_path / "preference" / "alpaca_eval", [PAIR], [PAIR], tmp_path)


def source(**changes):
    values = {"embedded": "preference", "local": "x", "hub_id": "a/b", "revision": "c", "hub_file": "d"}
    return TextSource(**values | {"held_out": 0.2, "held_out_from": "start"} | changes)


def test_the_release_holds_out_the_first_fifth():
    found = held_out([{"idx": number} for number in range(10)], source())
    assert [row["idx"] for row in found["validation"]] == [0, 1]
    assert [row["idx"] for row in found["train"]] == list(range(2, 10))


def test_a_drawn_hold_out_is_always_the_same_and_no_row_is_lost():
    rows = [{"idx": number} for number in range(100)]
    first, second = (held_out(rows, source(held_out=30.0, held_out_from="shuffle")) for _ in range(2))
    assert first == second
    assert len(first["validation"]) == 30
    assert [row["idx"] for row in first["validation"]] != list(range(30))
    assert sorted(row["idx"] for part in first.values() for row in part) == list(range(100))


def test_a_hub_data_set_without_a_pinned_commit_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"no commit of argilla/.* is pinned: set task.source.revision=COMMIT"):
        task("dpo").plan_data(settings(None, source="hub"), "hub")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: build({**vars(task("instruct")), "_target_": "experiments.instruct.InstructTask", "loss_on": "x"}),
            "loss_on",
        ),
        (
            lambda: build({**vars(task("dpo")), "_target_": "experiments.dpo.DpoTask", "beta": 0.0}),
            "beta must be above 0",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_tasks_are_of_their_classes():
    assert isinstance(task("instruct"), InstructTask)
    assert isinstance(task("dpo"), DpoTask)
