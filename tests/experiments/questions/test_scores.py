"""Numbers, options and short answers read from what a model wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks.qasper.metrics import normalize_answer

from experiments.questions.scores import (
    METRICS,
    first_number,
    named_option,
    normalised,
    number_after,
    numbers,
    overlap_f1,
    read_number,
    score,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so 3 and 4", [3.0, 4.0]),
        ("it costs $1,234.50.", [1234.5]),
        ("-7 degrees, not 7.", [-7.0, 7.0]),
        ("none", []),
        ("1,000,000 or 2.", [1000000.0, 2.0]),
        ("half is .5 or 1/2, not 5", [0.5, 0.5, 5.0]),
        ("\u22125 and \u20137 and -.25", [-5.0, -7.0, -0.25]),
        ("1e3, 2.5E-2 and 1e\u22122", [1000.0, 0.025, 0.01]),
        ("10-3 = 7", [10.0, 3.0, 7.0]),
        ("1,2 and 1,2345 and 1,00,000", [1.0, 2.0, 1.0, 2345.0, 100000.0]),
        ("1/0 and 1e999 are no numbers, 3 is", [3.0]),
    ],
)
def test_numbers_are_read_with_signs_commas_and_decimals(text, found):
    assert numbers(text) == found


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
    assert first_number(f"the answer is {value:,.3f}") == pytest.approx(value, abs=1e-3)


@given(st.text())
def test_no_text_breaks_the_reading(text):
    rows = [{"text": text, "references": ["1"], "mark": "####", "names": ["a"], "correct": [0]}]
    for scoring in ("number", "option", "reading"):
        assert all(0.0 <= found.value <= 1.0 for found in score(scoring, rows).values())


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


def test_another_mark_is_looked_for():
    text = "The final answer is: 12 because 13"
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
