"""The embedded instructions and pairs: columns, stable in content, right answers right and wrong ones wrong."""

import os
import subprocess
import sys
from random import Random

import pytest

from lorta.embedded.instructions import COLUMNS, SIZES, WORDINGS, text_fingerprint, text_rows
from lorta.embedded.operations import OPERATIONS
from lorta.embedded.tasks import rows_fingerprint

SPLITS = [(kind, split) for kind in SIZES for split in SIZES[kind]]


@pytest.mark.parametrize(("kind", "split"), SPLITS)
def test_rows_have_the_committed_fingerprint_and_the_columns(kind, split):
    rows = text_rows(kind, split)
    assert rows_fingerprint(rows) == text_fingerprint(kind, split)
    assert {tuple(row) for row in rows} == {(*COLUMNS[kind], "idx")}
    assert len(rows) == SIZES[kind][split]


@pytest.mark.parametrize(("kind", "columns"), [("instruct", ("instruction", "input")), ("preference", ("prompt",))])
def test_no_held_out_prompt_is_trained_on(kind, columns):
    prompts = [{tuple(row[name] for name in columns) for row in text_rows(kind, split)} for split in SIZES[kind]]
    assert prompts[0].isdisjoint(prompts[1])


def test_the_two_answers_of_a_pair_differ():
    assert all(
        row["chosen"] != row["rejected"] for split in SIZES["preference"] for row in text_rows("preference", split)
    )


def test_every_operation_can_be_asked_for_in_several_ways():
    assert WORDINGS.keys() == OPERATIONS.keys()
    assert all(len(set(wordings)) > 1 for wordings in WORDINGS.values())
    assert {row["instruction"] for row in text_rows("instruct", "train")} == {
        w for some in WORDINGS.values() for w in some
    }


@pytest.mark.parametrize("cue", OPERATIONS)
def test_a_wrong_answer_is_never_the_right_one(cue):
    random = Random(cue)
    exercises = [OPERATIONS[cue](random) for _ in range(300)]
    assert all(exercise.wrong and exercise.answer not in exercise.wrong for exercise in exercises)


@pytest.mark.parametrize(
    ("cue", "given", "answer"),
    [
        ("passive", "dogs chase cats", "cats are chased by dogs"),
        ("active", "cats are chased by dogs", "dogs chase cats"),
        ("swap", "dogs chase cats", "cats chase dogs"),
        ("synonym", "dogs chase cats", "dogs pursue cats"),
        ("subject", "cats are chased by dogs", "dogs"),
        ("object", "dogs chase cats", "cats"),
    ],
)
def test_an_operation_does_what_it_is_called(cue, given, answer):
    random = Random(0)
    found = {exercise.given: exercise.answer for exercise in (OPERATIONS[cue](random) for _ in range(20_000))}
    assert found[given] == answer


def test_sums_are_right():
    random = Random(1)
    for exercise in (OPERATIONS["sum"](random) for _ in range(200)):
        left, sign, right = exercise.given.split()
        assert int(exercise.answer) == (int(left) + int(right) if sign == "+" else int(left) - int(right))


def test_rows_do_not_depend_on_the_hash_seed_nor_on_torch():
    script = (
        "import sys; sys.modules.update(torch=None, transformers=None); "
        "from lorta.embedded.instructions import text_rows as r; "
        "from lorta.embedded.tasks import rows_fingerprint as f; "
        "print(f(r('instruct', 'train')), f(r('preference', 'validation')))"
    )
    expected = [text_fingerprint("instruct", "train"), text_fingerprint("preference", "validation")]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected


@pytest.mark.parametrize(("kind", "split"), [("chat", "train"), ("instruct", "test")])
def test_an_unknown_kind_or_split_is_refused(kind, split):
    with pytest.raises(ValueError, match="have no"):
        text_rows(kind, split)
