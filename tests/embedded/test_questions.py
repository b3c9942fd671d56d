"""The embedded questions: stable in content, answerable, and with no held-out row in training."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from lorta.embedded import language as lang
from lorta.embedded.questions import LARGEST_NUMBER, QUESTION_KINDS, SIZES, question_fingerprint, question_rows
from lorta.embedded.tasks import rows_fingerprint


@pytest.mark.parametrize("split", SIZES)
@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_rows_have_the_committed_fingerprint(kind, split):
    rows = question_rows(kind, split)
    assert rows_fingerprint(rows) == question_fingerprint(kind, split)
    assert [row["idx"] for row in rows] == list(range(SIZES[split]))


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_no_held_out_row_is_trained_on(kind):
    train, held_out = (
        {json.dumps({key: value for key, value in row.items() if key != "idx"}) for row in question_rows(kind, split)}
        for split in ("train", "validation")
    )
    assert len(train) == SIZES["train"] and train.isdisjoint(held_out)


def test_another_hash_seed_draws_the_same_rows():
    code = (
        "from lorta.embedded.questions import *; from lorta.embedded.tasks import rows_fingerprint as f; "
        "print(*(f(question_rows(kind, 'validation')) for kind in QUESTION_KINDS))"
    )
    expected = [question_fingerprint(kind, "validation") for kind in QUESTION_KINDS]
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == expected


def test_the_worked_sum_is_right_and_asks_for_what_the_question_says():
    for row in question_rows("word_problems", "train"):
        worked, _, final = row["answer"].partition("\n#### ")
        left, sign, right, _, result = worked.removeprefix("sum : ").split()
        assert int(result) == int(left) + (int(right) if sign == "+" else -int(right)) == int(final)
        assert 0 <= int(result) <= LARGEST_NUMBER
        assert f" {left} " in row["question"] and f" {right} " in row["question"]
        assert (sign == "+") == any(verb in row["question"] for verb in (" get ", " buy ", " find "))


@pytest.mark.parametrize("kind", ["verdicts", "roles"])
def test_no_answer_is_the_usual_one(kind):
    rows = question_rows(kind, "train")
    places = Counter(row["instruction"].rpartition(": ")[2].split("/").index(row["answer"]) for row in rows)
    assert max(places.values()) < 0.6 * len(rows)


def test_the_right_choice_says_the_same_and_the_other_does_not():
    for row in question_rows("causes", "train"):
        premise, right = (_parse(text) for text in (row["premise"][:-1], row[f"choice{row['label'] + 1}"]))
        assert premise == right != _parse(row[f"choice{2 - row['label']}"])


def test_a_gap_is_filled_by_the_one_who_did_it():
    for row in question_rows("gaps", "train"):
        sentences = {_parse(text) for text in row["passage"].split("\n@highlight\n")}
        filled = [e for e in row["entities"] if _parse(row["query"].replace("@placeholder", e)) in sentences]
        assert filled == row["answers"]


def test_an_unknown_kind_or_split_is_a_sentence():
    with pytest.raises(ValueError, match="no kind 'riddles'; choose one of word_problems"):
        question_rows("riddles", "train")
    with pytest.raises(ValueError, match="no split 'test'"):
        question_fingerprint("roles", "test")


def _parse(sentence: str) -> lang.Proposition:
    """Read a sentence back: an independent reader of the language's two voices."""
    words = sentence.split()
    verb = words[2] if "are" in words else words[1]
    sense = next(number for number, pair in enumerate(lang.SENSES) if any(verb in form for form in pair))
    first, last = words[0][:-1], words[-1][:-1]
    return lang.Proposition(last, sense, first) if "are" in words else lang.Proposition(first, sense, last)
