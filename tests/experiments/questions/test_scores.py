"""Numbers, options and short answers read from what a model wrote."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks.qasper.metrics import normalize_answer

from experiments.questions.scores import (
    METRICS,
    last_number,
    named_option,
    normalised,
    number_after,
    overlap_f1,
    read_number,
    score,
)

MATH = Path(os.environ.get("LORTA_DATA", Path(__file__).parents[4] / "shared" / "data")) / "math"
ANSWERS = [  # what a model writes behind the mark, and the number that it is
    *[("42", 42.0), ("-7", -7.0), ("\u22125", -5.0), ("\u20135", -5.0), ("+2", 2.0), ("007", 7.0), ("0", 0.0)],
    *[("1,234", 1234.0), ("1,234.5", 1234.5), ("1,00,000", 100000.0), ("12,345,678", 12345678.0), ("9.0", 9.0)],
    *[(".5", 0.5), ("-.25", -0.25), ("3/4", 0.75), ("-1/2", -0.5), ("1e3", 1000.0), ("2.5E-2", 0.025)],
    *[("1e\u22122", 0.01), ("$5", 5.0), ("$5.", 5.0), ("\u20ac1,200.50", 1200.5), ("**18**", 18.0), ("**$18.**", 18.0)],
    *[("42.", 42.0), (" 42 \nor perhaps 43", 42.0), ("42\r\n", 42.0), ("\n42", 42.0), ("42!", 42.0)],
    *[("3 1/2", None), ("12:30", None), ("50%", None), ("50 %", None), ("5 m", None), ("5m", None), ("1,2", None)],
    *[("1,2345", None), ("10-3", None), ("10 - 3 = 7", None), ("3x", None), ("1/0", None), ("1e999", None)],
    *[("1/2/3", None), ("1.2.3", None), ("1 000", None), ("5 million", None), ("3\u00bd", None), ("1e3.5", None)],
    *[
        ("12 because 13", None),
        ("2, 3", None),
        ("x = 2", None),
        ("seven", None),
        ("", None),
        ("--5", None),
        ("0x10", None),
    ],
    *[
        ("nan", None),
        ("inf", None),
        ("1_000", None),
        ("5 or 6", None),
        ("#### 5", None),
        ("7 days", None),
        ("4:3", None),
    ],
]


@pytest.mark.parametrize(("answer", "value"), ANSWERS)
def test_what_stands_behind_the_mark_is_a_number_as_a_whole_or_none(answer, value):
    """Issue 17, A10: what the reader does not consume whole is refused, not cut to its first digits."""
    assert number_after(f"think: 1 + 1 = 2\n#### {answer}", "####") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("it costs $1,234.50.", 1234.5), ("-7 degrees, not 7.", 7.0), ("10-3 = 7", 7.0), ("10-3=7", 7.0), ("none", None)]
    + [("2 x 12 = <<12*2=24>>24 pages", 24.0), ("half is **.5**", 0.5), ("(\u22125)", -5.0), ("24 <<12*2=24>>", 24.0)]
    + [(f"so it is {part}", None) for part in ("3 1/2", "12:30", "50%", "1/0", "10-3", "1 000", "5km", "1e999")],
)
def test_the_last_number_is_no_part_of_more(text, value):
    assert last_number(text) == value


@pytest.mark.parametrize(
    ("answer", "value"),
    [(".5", 0.5), ("1/2", 0.5), ("\u22125", -5.0), ("1e3", 1000.0), (" 1,234.5 ", 1234.5), ("9.0", 9.0), ("+2", 2.0)]
    + [(other, None) for other in ("50%", "3 1/2", "12:30", "$5", "5 m", "5.", "1,2", "10-3", "1/0", "1e999", "", "x")],
)
def test_an_answer_is_a_number_only_as_a_whole(answer, value):
    assert read_number(answer) == value


@pytest.mark.parametrize("answer", [".5", "1/2", "\u22125", "1e3"])
def test_an_answer_that_the_model_repeats_is_right_and_the_digits_alone_are_wrong(answer):
    digits = {".5": "5", "1/2": "1", "\u22125": "5", "1e3": "1"}[answer]
    rows = [{"text": f"#### {said}", "references": [answer], "mark": "####"} for said in (answer, digits)]
    assert [score("number", [row])["accuracy"].value for row in rows] == [1.0, 0.0]


@given(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)))
def test_any_written_number_is_read_back(value):
    text = f"the answer is {value:,.3f}"
    assert number_after(text, "answer is") == last_number(text) == pytest.approx(value, abs=1e-3)


@given(st.text())
def test_no_text_breaks_the_reading(text):
    rows = [{"text": text, "references": ["1"], "mark": "####", "names": ["a"], "correct": [0]}]
    for scoring in ("number", "option", "reading"):
        values = [found.value for found in score(scoring, rows).values()]
        assert all(value is not None and 0.0 <= value <= 1.0 for value in values)


def test_the_number_behind_the_mark_counts_and_the_last_one_is_another_metric():
    rows = [
        {"text": "3 + 4 = 7\n#### 7", "references": ["7"], "mark": "####"},
        {"text": "#### 7\nor perhaps 8", "references": ["7"], "mark": "####"},
        {"text": "it is 7", "references": ["7"], "mark": "####"},
        {"text": "#### seven", "references": ["7"], "mark": "####"},
        {"text": "#### 1,200", "references": ["1200"], "mark": "####"},
    ]
    found = score("number", rows)
    assert found["accuracy"].value == pytest.approx(3 / 5)
    assert found["accuracy_last_number"].value == pytest.approx(3 / 5)
    assert found["unparsed"].value == pytest.approx(2 / 5)


@pytest.mark.skipif(not MATH.is_dir(), reason=f"no real gold answers at {MATH} (set LORTA_DATA to their folder)")
@pytest.mark.parametrize(
    ("file", "count"), [("gsm8k/train", 2500), ("gsm8k/validation", 400), ("svamp/validation", 1000)]
)
def test_real_gold_answers_are_read_right_as_a_models_own(file, count):
    """GSM8K's end in #### NUMBER, with calculations such as <<12*2=24>>; SVAMP's are numbers."""
    rows = [json.loads(line) for line in (MATH / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [row["answer"] if "####" in row["answer"] else f"#### {row['answer']}" for row in rows]
    golds = [text.rpartition("####")[2].strip() for text in texts]
    told = [{"text": text, "references": [gold], "mark": "####"} for text, gold in zip(texts, golds, strict=True)]
    found = {name: one.value for name, one in score("number", told).items()}
    assert (len(rows), found) == (count, {"accuracy": 1.0, "accuracy_last_number": 1.0, "unparsed": 0.0})
    assert [read_number(gold) for gold in golds] == [float(gold.replace(",", "")) for gold in golds]


def test_another_mark_is_looked_for():
    text = "The final answer is: 12."
    assert number_after(text, "The final answer is: ") == 12.0
    assert number_after(text, "####") is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("the correct answer is true", 0),
        ("false, not true", 1),
        ("untrue", None),
        ("", None),
    ],
)
def test_the_first_option_named_as_a_word_is_the_choice(text, place):
    assert named_option(text, ["true", "false"]) == place


def test_a_longer_name_is_not_taken_for_a_shorter_one():
    assert named_option("answer10", ["answer1", "answer10"]) == 1


def test_options_are_scored_by_name_and_unnamed_ones_counted():
    names = {"names": ["answer1", "answer2"]}
    rows = [{"text": "answer2", "correct": [1], **names}, {"text": "nothing", "correct": [0], **names}]
    found = score("option", rows)
    assert (found["accuracy"].value, found["unparsed"].value) == (0.5, 0.5)


def test_any_right_option_is_right():
    rows = [{"scores": [-1.0, -2.0, -0.5], "correct": [0, 2]}, {"scores": [-1.0, -2.0, -0.5], "correct": [0, 1]}]
    assert score("likelihood", rows)["accuracy"].value == 0.5


def test_log_probabilities_that_are_no_numbers_say_so():
    found = score("likelihood", [{"scores": [float("nan"), 0.0], "correct": [0]}])["accuracy"]
    assert found.value is None and found.reason == "1 of 1 rows have a log-probability that is NaN"


@pytest.mark.parametrize("scoring", METRICS)
def test_no_rows_is_a_reason_not_a_zero(scoring):
    assert all(found.value is None and found.reason for found in score(scoring, []).values())


@given(st.text())
def test_normal_form_is_that_of_squad(text):
    assert normalised(text) == normalize_answer(text)


@pytest.mark.parametrize(
    ("text", "reference", "f1"),
    [
        ("The cat.", "cat", 1.0),
        ("a black cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("cat cat", "cat", 2 / 3),
    ],
)
def test_f1_is_of_shared_words(text, reference, f1):
    assert overlap_f1(text, reference) == pytest.approx(f1)


def test_the_best_reference_counts():
    rows = [{"text": "black cat", "references": ["dog", "the cat"]}]
    found = score("reading", rows)
    assert found["f1"].value == pytest.approx(2 / 3)
    assert found["exact_match"].value == 0.0
