"""FastChat's files as requests: which prompt, which reference, whose answer where."""

import json
import os
from pathlib import Path

import pytest

from experiments.judge.prompts import (
    Question,
    load_answers,
    load_prompts,
    load_questions,
    pair_requests,
    single_requests,
)

SHARED = Path(os.environ.get("LORTA_DATA", Path(__file__).parents[4] / "shared" / "data"))
FOLDER = SHARED / "instruct" / "mt_bench"
real = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no MT-Bench files at {FOLDER} (set LORTA_DATA)")


@pytest.fixture(scope="module")
def bench():
    questions = load_questions(FOLDER / "question.jsonl", FOLDER / "reference_gpt4.jsonl")
    return questions, load_prompts(FOLDER / "judge_prompts.jsonl")


def answers(questions, who):
    return {q.question_id: tuple(f"<{who} {q.question_id}.{turn}>" for turn in (1, 2)) for q in questions}


@real
def test_the_bench_is_eighty_questions_of_two_turns_in_eight_categories(bench):
    questions, prompts = bench
    assert len(questions) == 80 and {len(question.turns) for question in questions} == {2}
    counts = {name: sum(q.category == name for q in questions) for name in {q.category for q in questions}}
    assert len(counts) == 8 and set(counts.values()) == {10}
    assert {q.category for q in questions if q.reference} == {"math", "reasoning", "coding"}
    assert len(prompts) == 8


@real
def test_each_request_has_fastchats_prompt_for_its_category_and_turn(bench):
    questions, prompts = bench
    names = {}
    for request in single_requests(questions, answers(questions, "x"), prompts):
        names.setdefault((request.question.category in ("math", "reasoning", "coding"), request.turn), set()).add(
            request.prompt_name
        )
    assert names == {
        (False, 1): {"single-v1"},
        (False, 2): {"single-v1-multi-turn"},
        (True, 1): {"single-math-v1"},
        (True, 2): {"single-math-v1-multi-turn"},
    }


@real
def test_a_request_holds_question_answer_and_reference_and_no_unfilled_place(bench):
    questions, prompts = bench
    by_id = {question.question_id: question for question in questions}
    for request in single_requests(questions, answers(questions, "x"), prompts):
        question = by_id[request.question.question_id]
        assert f"<x {question.question_id}.{request.turn}>" in request.text
        assert all(turn in request.text for turn in question.turns[: request.turn])
        assert all(text in request.text for text in question.reference[: request.turn])
        assert request.system == prompts[request.prompt_name]["system_prompt"]


@real
def test_the_second_order_swaps_the_answers_and_nothing_else(bench):
    questions, prompts = bench
    requests = pair_requests(questions[:1], (answers(questions, "a"), answers(questions, "b")), prompts)
    assert [(r.turn, r.order, r.prompt_name) for r in requests] == [
        (1, "ab", "pair-v2"),
        (1, "ba", "pair-v2"),
        (2, "ab", "pair-v2-multi-turn"),
        (2, "ba", "pair-v2-multi-turn"),
    ]
    for first, second in (requests[:2], requests[2:]):
        swapped = second.text.replace("<a ", "<? ").replace("<b ", "<a ").replace("<? ", "<b ")
        assert first.text == swapped != second.text


@real
def test_a_question_judged_by_reference_needs_one(bench):
    questions, prompts = bench
    bare = [Question(q.question_id, q.category, q.turns) for q in questions if q.category == "math"]
    with pytest.raises(ValueError, match="judged against a reference: none given"):
        single_requests(bare, answers(bare, "x"), prompts)


def write(file, rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def test_preference_rows_are_questions_of_one_turn(tmp_path):
    rows = [{"prompt": "why?", "chosen": "a", "rejected": "b", "idx": 7}, {"prompt": "how?"}]
    found = load_questions(write(tmp_path / "q.jsonl", rows))
    assert [(q.question_id, q.turns, q.category) for q in found] == [
        (7, ("why?",), "preference"),
        (2, ("how?",), "preference"),
    ]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"question_id": 1, "category": "x", "turns": []}], "line 1: a question needs"),
        ([{"category": "x", "turns": ["a"]}], "line 1: a question needs"),
        ([{"question_id": 1, "category": "x", "turns": ["a"]}] * 2, "line 2: question_id 1 is there twice"),
        ([], "no questions"),
    ],
)
def test_a_wrong_questions_file_is_a_sentence(tmp_path, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_questions(write(tmp_path / "q.jsonl", rows))


def test_missing_files_prompts_and_turns_are_sentences(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_prompts(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="no judge prompt single-v1-multi-turn, single-math-v1"):
        load_prompts(write(tmp_path / "p.jsonl", [{"name": "single-v1", "system_prompt": "", "prompt_template": ""}]))
    with pytest.raises(ValueError, match="line 1: an answer needs"):
        load_answers(write(tmp_path / "a.jsonl", [{"question_id": 1, "choices": []}]))
