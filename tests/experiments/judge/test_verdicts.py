"""What a judge's text means, and what many verdicts mean together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.judge.verdicts import category_means, rating, win_rates, winner


@pytest.mark.parametrize(
    ("text", "value"),
    [("Good. Rating: [[7]]", 7.0), ("[[8.5]] because", 8.5), ("[[3]] or rather [[4]]", 3.0), ("Rating: [[10]]", 10.0)],
)
def test_the_first_double_bracket_is_the_score(text, value):
    assert rating(text) == (value, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rating: 7", "no [[n]]"),
        ("see [1]", "no [[n]]"),
        ("Rating: [[rating]]", "no [[n]]"),
        ("[[11]]", "between 1 and 10"),
        ("[[0]]", "between 1 and 10"),
        ("", "no [[n]]"),
    ],
)
def test_a_text_without_a_score_says_why(text, reason):
    value, why = rating(text)
    assert value is None and reason in why


@given(st.text())
def test_no_text_breaks_the_reading(text):
    value, reason = rating(text)
    assert (value is None) == (reason is not None)


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [("[[A]]", "ab", "a"), ("[[A]]", "ba", "b"), ("[[B]]", "ab", "b"), ("[[B]]", "ba", "a"), ("[[C]]", "ba", "tie")],
)
def test_swapped_places_are_swapped_back(text, order, expected):
    assert winner(text, order) == (expected, None)


def test_two_verdicts_are_none():
    assert winner("[[A]] is better than... no, [[B]]", "ab")[0] is None
    assert winner("[[A]] and again [[A]]", "ab")[0] == "a"


def row(category, turn, score):
    return {"category": category, "turn": turn, "score": score}


def test_means_leave_out_what_has_no_score_and_count_it():
    rows = [row("math", 1, 4.0), row("math", 2, None), row("writing", 1, 8.0), row("writing", 2, 9.0)]
    means = category_means(rows)
    assert means["math"] == {"score": 4.0, "turn_1": 4.0, "turn_2": None, "scored": 1, "unscored": 1}
    assert means["all"]["score"] == 7.0  # over rows, not over categories
    assert (means["all"]["scored"], means["all"]["unscored"]) == (3, 1)


def game(question_id, first, second):
    return [
        {"question_id": question_id, "turn": 1, "order": "ab", "winner": first},
        {"question_id": question_id, "turn": 1, "order": "ba", "winner": second},
    ]


def test_verdicts_that_follow_the_place_are_ties():
    rows = [*game(1, "a", "a"), *game(2, "a", "b"), *game(3, "b", "b"), *game(4, "tie", "tie"), *game(5, "a", "tie")]
    rates = win_rates(rows)
    assert (rates["wins"], rates["losses"], rates["ties"], rates["inconsistent"]) == (1, 1, 3, 2)
    assert rates["win_rate"] == pytest.approx((1 + 1.5) / 5)


def test_games_without_both_verdicts_are_left_out():
    rates = win_rates([*game(1, "a", None), *game(2, "a", "a")[:1], *game(3, "a", "a")])
    assert (rates["undecided"], rates["win_rate"]) == (2, 1.0)
    assert win_rates(game(1, None, None))["win_rate"] is None
