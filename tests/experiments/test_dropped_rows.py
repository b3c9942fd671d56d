"""Rows that cannot be used are counted with their reason, in the plan, the record, the table and on the screen."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from lorta.analysis.summary import summarise
from lorta.api.holdout import load_splits
from lorta.cli.main import main
from lorta.config.instantiate import build
from lorta.config.places import CONF
from lorta.launch.progress import follow
from lorta.models.locate import find_model
from lorta.models.tokenizer import load_tokenizer
from lorta.planning.planner import make_plan
from lorta.records.row_counts import ANSWER_CUT, ANSWER_EMPTY, QUESTION_CUT, RowCount, RowsUnusable
from lorta.records.sections import Split
from lorta.records.store import Store
from lorta.reporting.captions import caption
from lorta.runner.execute import execute
from lorta.runner.record_builder import with_rows
from lorta.status.rows import row_lines
from tests.example_records import finished, with_section
from tests.experiments.folding.structure_files import write_pdb

LONG = "the old dog " * 60
INSTRUCT = {"instruction": "Say it.", "output": "it"}
LONG_PROMPT = INSTRUCT | {"instruction": LONG}
PAIR = {"prompt": "Say it.", "chosen": "it " * 90 + "yes", "rejected": "it " * 90 + "no"}
TOO_LONG = "the prompt alone fills data.max_length"
EQUAL = "both answers are the same tokens within data.max_length"
FOLDERS = {
    "instruct": "instruct/alpaca",
    "dpo": "preference/alpaca_eval",
    "glue/sst2": "glue/sst2",
    "gsm8k": "math/gsm8k",
    "commonsense/boolq": "commonsense/boolq",
}


def write(root: Path, name: str, train: list[dict], validation: list[dict]) -> None:
    folder = root / FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("validation", validation)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def planned(root: Path, name: str, *overrides: str):
    words = [f"task={name}", f"data.root={root}", f"runtime.runs={root / 'runs'}", f"runtime.cache={root / 'cache'}"]
    (spec,) = make_plan([*words, "trainer=smoke", *overrides], False, CONF).specs
    return spec


def counts(root: Path, name: str, *overrides: str) -> dict[str, RowCount]:
    """What the task counts of its rows when they are loaded."""
    spec = planned(root, name, *overrides)
    task, settings = build(spec.settings.task), spec.settings
    tokenizer = load_tokenizer(find_model(settings.model))
    plan = task.plan_data(settings.data, settings.model.data)
    found = load_splits(task, plan, settings.data, tokenizer, root / "cache")
    used = {"train": len(found.train), "evaluation": len(found.evaluation)}
    assert {use: count.used for use, count in found.counts.items()} == used
    return dict(found.counts)


def test_instructions_without_room_for_an_answer_are_counted(tmp_path):
    rows = [INSTRUCT, INSTRUCT | {"instruction": LONG}, INSTRUCT]
    write(tmp_path, "instruct", rows, [INSTRUCT])
    found = counts(tmp_path, "instruct", "data.max_length=64")
    assert found == {"train": RowCount(3, {TOO_LONG: 1}), "evaluation": RowCount(1)}
    assert counts(tmp_path, "instruct", "data.max_length=64") == found  # from the cache


def test_pairs_that_are_equal_as_far_as_they_fit_are_no_pairs(tmp_path):
    rows = [PAIR, PAIR | {"rejected": "never"}, PAIR | {"prompt": LONG}]
    write(tmp_path, "dpo", rows, [PAIR, PAIR | {"rejected": "never"}])
    found = counts(tmp_path, "dpo", "data.max_length=64")
    assert found["train"] == RowCount(3, {EQUAL: 1, TOO_LONG: 1})
    assert found["evaluation"] == RowCount(2, {EQUAL: 1})
    assert counts(tmp_path, "dpo", "data.max_length=1000")["train"] == RowCount(3)


def test_empty_and_cut_answers_are_used_and_counted(tmp_path):
    rows = [INSTRUCT, INSTRUCT | {"output": " "}, INSTRUCT | {"output": LONG}, INSTRUCT | {"instruction": LONG}]
    write(tmp_path, "instruct", rows, [INSTRUCT])
    counted = counts(tmp_path, "instruct", "data.max_length=64")
    assert counted["train"].noted == {ANSWER_CUT: 1, ANSWER_EMPTY: 1}
    assert counted["evaluation"].noted == {}
    assert counts(tmp_path, "instruct", "data.max_length=64")["train"].noted == counted["train"].noted  # from the cache


def test_cut_pairs_are_used_and_counted(tmp_path):
    write(tmp_path, "dpo", [PAIR, PAIR | {"rejected": "never"}, PAIR | {"chosen": "yes"}], [PAIR])
    assert counts(tmp_path, "dpo", "data.max_length=1000")["train"].noted == {}
    write(tmp_path, "dpo", [PAIR, PAIR | {"rejected": "never"}, PAIR | {"chosen": "yes"}], [PAIR | {"chosen": "it"}])
    assert counts(tmp_path, "dpo", "data.max_length=64")["train"].noted == {ANSWER_CUT: 2}


def test_cut_questions_are_used_and_counted(tmp_path):
    row = {"question": "1 and 1?", "answer": "#### 2"}
    write(
        tmp_path,
        "gsm8k",
        [row, row | {"question": LONG}, row | {"answer": f"{LONG} #### 2"}],
        [row, row | {"question": LONG}],
    )
    counted = counts(tmp_path, "gsm8k", "data.max_length=64")
    assert (counted["train"].noted, counted["evaluation"].noted) == ({QUESTION_CUT: 2}, {QUESTION_CUT: 1})


def test_options_that_no_longer_differ_are_no_question(tmp_path):
    row = {"instruction": "so?\n\nAnswer format: true/false", "answer": "false"}
    write(tmp_path, "commonsense/boolq", [row], [row] * 2)
    assert counts(tmp_path, "commonsense/boolq")["evaluation"] == RowCount(2)
    equal = r"no row is left for evaluation, 0 of 2 rows used \(2: a right and a wrong option are the same tokens"
    with pytest.raises(RowsUnusable, match=equal):
        counts(tmp_path, "commonsense/boolq", "data.max_length=4")


def test_all_wrong_rows_are_counted_and_the_first_named(tmp_path):
    good, bare, same = PAIR | {"rejected": "never"}, PAIR | {"prompt": " "}, PAIR | {"rejected": PAIR["chosen"]}
    write(tmp_path, "dpo", [good, bare, same, bare, same, same], [good])
    words = ["task=dpo", f"data.root={tmp_path}", f"runtime.runs={tmp_path}/runs"]
    problems = make_plan(words, False, CONF).problems
    keep = "(task.source.keep can leave such rows out)"
    assert [problem.partition("train.jsonl")[2] for problem in problems] == [
        f", line 2: column prompt is empty {keep}",
        f", line 3: chosen and rejected are the same text {keep}",
        f", line 4: column prompt is empty {keep}",
        ": 5 of 6 rows cannot be used, of which 3 are named",
    ]
    kept = make_plan([*words, "task.source.keep='prompt != \" \" and chosen != rejected'"], False, CONF)
    assert not kept.problems and kept.specs[0].data.counts["train"] == RowCount(6, {"task.source.keep": 5})


def test_a_hold_out_of_more_than_half_is_refused_before_anything_runs(tmp_path, capsys):
    write(tmp_path, "instruct", [INSTRUCT] * 9, [INSTRUCT])
    words = ["plan", "task=instruct", "adapter=lora", f"data.root={tmp_path}", f"runtime.runs={tmp_path}/runs"]
    for hold_out, key in ((["tune=lr", "tune.holdout=5"], "tune"), (["data.holdout=5"], "data")):
        assert main([*words, *hold_out]) == 2
        assert f"{key}.holdout=5 is more than half of 9 training rows: hold out fewer" in capsys.readouterr().err
    assert main([*words, "tune=lr", "tune.holdout=4"]) == 0
    assert "rows of instruct, train (before tokenisation): 9 rows, all used" in capsys.readouterr().out  # all wait


@pytest.mark.parametrize(("name", "row", "reason"), [("dpo", PAIR, EQUAL), ("instruct", LONG_PROMPT, TOO_LONG)])
def test_a_run_of_which_no_row_is_left_fails_with_the_counts_of_both_splits(name, row, reason, tmp_path, capsys):
    """Issue 17, A9: record, plan, screen and `lorta show` say what became of the rows of a run that failed for it."""
    good = INSTRUCT if name == "instruct" else PAIR | {"rejected": "never"}
    write(tmp_path, name, [row] * 3, [row, row, good])
    spec = planned(tmp_path, name, "data.max_length=64", "adapter=lora", "runtime.checks=false")
    record = execute(spec)
    sentence = f"data.max_length=64: no row is left for train, 0 of 3 rows used (3: {reason}); raise it"
    assert record.status == "failed" and record.failure is not None
    assert (record.failure.kind, record.failure.message) == ("data", sentence)
    stored = Store(tmp_path / "runs").read(spec.run_id)
    assert stored is not None and stored.task is not None
    assert {use: (split.rows, split.count) for use, split in stored.task.splits.items()} == {
        "train": (0, RowCount(3, {reason: 3})),
        "evaluation": (1, RowCount(3, {reason: 2})),
    }
    lost = f"3 rows used (2: {reason})"
    noted = f"; of the rows used, 1: {ANSWER_CUT}" if name == "dpo" else ""
    lines = [
        f"rows of {name}, evaluation: 1 of {lost}{noted}",
        f"rows of {name}, train: 0 of 3 rows used (3: {reason})",
    ]
    assert sorted(row_lines([spec])) == lines
    screen = io.StringIO()
    console = Console(file=screen, width=300)
    follow([spec], [record], console)
    assert f"rows of {name}, evaluation: 1 of {lost}" in screen.getvalue()
    assert main(["show", spec.run_id, "--runs", f"{tmp_path}/runs"]) == 0
    assert f"rows      evaluation 1 of {lost}" in capsys.readouterr().out


def test_a_hold_out_of_more_than_half_says_how_many_rows_there_were(tmp_path):
    write(tmp_path, "dpo", [PAIR | {"rejected": "never"}] * 3 + [PAIR | {"prompt": LONG}], [PAIR])
    with pytest.raises(RowsUnusable, match="more than half of 3 training rows") as refused:
        counts(tmp_path, "dpo", "data.max_length=150", "data.holdout=2")
    assert refused.value.counts["train"] == RowCount(4, {TOO_LONG: 1})


def test_filters_and_caps_are_counted_in_their_order(tmp_path):
    rows = [INSTRUCT | {"score": number % 2} for number in range(10)]
    write(tmp_path, "instruct", rows, rows)
    found = counts(tmp_path, "instruct", "task.source.keep='score == 1'", "data.max_train_samples=3")
    assert found["train"] == RowCount(10, {"task.source.keep": 5, "data.max_train_samples": 2})
    assert found["evaluation"] == RowCount(10, {"task.source.keep": 5})


@pytest.mark.parametrize(
    ("name", "row"),
    [("glue/sst2", {"sentence": "a dog", "label": 0}), ("gsm8k", {"question": "1 and 1?", "answer": "#### 2"})],
)
def test_every_task_counts_what_its_caps_leave_out(name, row, tmp_path):
    write(tmp_path, name, [row] * 9, [row] * 4)
    found = counts(tmp_path, name, "data.max_train_samples=5")
    assert found == {"train": RowCount(9, {"data.max_train_samples": 4}), "evaluation": RowCount(4)}


def test_pairs_can_be_held_out_as_they_are(tmp_path):
    write(tmp_path, "dpo", [PAIR] * 9, [PAIR])
    counted = counts(tmp_path, "dpo", "data.holdout=3", "data.max_length=1000")
    assert counted == {"train": RowCount(9, {"data.holdout": 3}), "evaluation": RowCount(3)}


def test_rows_that_are_held_out_are_counted_as_such(tmp_path):
    row = {"sentence": "a dog", "label": 0}
    write(tmp_path, "glue/sst2", [row] * 9, [row])
    found = counts(tmp_path, "glue/sst2", "data.holdout=3")
    assert found == {"train": RowCount(9, {"data.holdout": 3}), "evaluation": RowCount(3)}


@pytest.mark.parametrize("given", [True, False])
def test_missing_and_broken_structures_are_counted(given, tmp_path):
    folder = tmp_path / "protein"
    folder.mkdir()
    lines = ["file\tchain\tsplit" if given else "file\tchain"]
    for name, side in (("a", "train"), ("b", "train"), ("c", "validation"), ("d", "validation"), ("e", "validation")):
        lines.append(f"{name}.pdb\tA\t{side}" if given else f"{name}.pdb\tA")
        write_pdb(folder / f"{name}.pdb")
    (folder / "d.pdb").unlink()
    (folder / "e.pdb").write_text("no structure")
    (folder / "index.tsv").write_text("\n".join(lines) + "\n")
    lost = {"the file is missing": 1, "the structure cannot be used, targets.csv says why": 1}
    known = planned(tmp_path, "folding").data.counts
    if given:
        assert known == {"train": RowCount(2), "evaluation": RowCount(3, lost)}
        assert counts(tmp_path, "folding") == known
        assert counts(tmp_path, "folding", "data.max_train_samples=1")["train"].used == 1
    else:
        assert known == {"all": RowCount(5, lost)}


def test_the_plan_says_what_is_known_before_a_run(tmp_path, capsys):
    rows = [INSTRUCT | {"score": number} for number in range(10)]
    write(tmp_path, "instruct", rows, rows[:2])
    words = ["task=instruct", f"data.root={tmp_path}", "task.source.keep='score != 1'", f"runtime.runs={tmp_path}/runs"]
    assert main(["plan", *words, "data.max_train_samples=4"]) == 0
    shown = capsys.readouterr().out
    dropped = "(1: task.source.keep; 5: data.max_train_samples)"
    assert f"rows of instruct, train (before tokenisation): 4 of 10 rows used {dropped}" in shown
    assert "rows of instruct, evaluation (before tokenisation): 1 of 2 rows used (1: task.source.keep)" in shown


def test_record_screen_plan_and_table_say_what_was_dropped(tmp_path, capsys):
    rows = [INSTRUCT, INSTRUCT | {"instruction": LONG}] * 5 + [
        INSTRUCT | {"output": ""},
        INSTRUCT | {"instruction": LONG},
    ]
    write(tmp_path, "instruct", rows, rows)
    overrides = ("data.max_length=64", "adapter=lora", "trainer.max_steps=1", "runtime.checks=false")
    spec = planned(tmp_path, "instruct", *overrides)
    record = execute(spec)
    assert record.status == "success" and record.task is not None, record.failure
    split = record.task.splits["train"]
    assert (split.read, split.rows, split.dropped, split.noted) == (12, 6, {TOO_LONG: 6}, {ANSWER_EMPTY: 1})
    screen = io.StringIO()
    console = Console(file=screen, width=300)
    follow([spec, spec], [record, record], console)
    line = f"instruct, train: 6 of 12 rows used (6: {TOO_LONG})"
    full = f"{line}; of the rows used, 1: {ANSWER_EMPTY}"
    assert screen.getvalue().count(f"rows of {full}") == 1  # once a sweep
    assert f"rows of train: {full.partition(': ')[2]}" in (spec.folder / "log.txt").read_text()
    assert main(["show", spec.run_id, "--runs", f"{tmp_path}/runs"]) == 0
    assert f"rows      train {full.partition(': ')[2]}" in capsys.readouterr().out
    assert (
        main(
            [
                "plan",
                "task=instruct",
                f"data.root={tmp_path}",
                f"runtime.runs={tmp_path}/runs",
                "trainer=smoke",
                *overrides,
            ]
        )
        == 0
    )
    assert f"rows of {full}" in capsys.readouterr().out
    (table,) = summarise([record])
    said = " ".join(caption(table))
    assert "6 of 12 / 6 of 12" in said
    assert line in said
    assert f"Of the rows used: instruct, train: 1: {ANSWER_EMPTY}; instruct, evaluation: 1: {ANSWER_EMPTY}." in said


def test_a_task_that_counts_nothing_leaves_the_count_open():
    splits = {use: Split(rows=0, fingerprint=use) for use in ("train", "evaluation")}
    rows: Any = SimpleNamespace(train=[1, 2], evaluation=[3], counts={})
    found = with_rows(with_section(finished(), "task", splits=splits), rows).task
    assert found is not None
    assert found.splits == {use: replace(split, rows=len(getattr(rows, use))) for use, split in splits.items()}
