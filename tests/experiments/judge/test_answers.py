"""Answers of two turns: what the second turn reads, what is kept, what is never mixed."""

import json
from dataclasses import replace

import pytest

from experiments.generation import Written
from experiments.judge.answers import (
    COUNTED,
    AnswerSettings,
    answer_all,
    answer_settings,
    beyond_positions,
    dialogue,
    what_is_missing,
)
from experiments.judge.prompts import Question, load_answers
from lorta.config.places import CONF
from tests.experiments.letters import letter_tokenizer, small_llama

QUESTIONS = [Question(number, "writing", (f"ask {number}", f"again {number}")) for number in range(5)]
GENERATION = {"max_new_tokens": 6, "batch_size": 2}
SETTINGS = AnswerSettings("Q:{question}A:", "Q:{question}A:", GENERATION, {}, 512)
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<go>"


@pytest.fixture(scope="module")
def tokenizer():
    return letter_tokenizer()


@pytest.fixture(scope="module")
def model():
    return small_llama()


def answers(model, tokenizer, file, questions=QUESTIONS, settings=SETTINGS, model_id="m", seed=0):
    count = answer_all(model, tokenizer, questions, settings, file, model_id, seed)
    return count, load_answers(file)


def test_the_second_turn_reads_the_first_and_its_answer(model, tokenizer, tmp_path):
    _, found = answers(model, tokenizer, tmp_path / "a.jsonl")
    first, second = found[3]
    alone = answers(model, tokenizer, tmp_path / "b.jsonl", [Question(9, "writing", (f"ask 3A:{first}Q:again 3",))])
    assert alone[1][9] == (second,)
    text = tokenizer.decode(dialogue(SETTINGS, tokenizer, QUESTIONS[3].turns, [first]))
    assert text == f"Q:ask 3A:{first}Q:again 3A:"


def test_a_chat_template_gets_the_turns_with_their_roles(tokenizer):
    chat = letter_tokenizer()
    chat.chat_template = TEMPLATE
    settings = replace(SETTINGS, first=None, later=None)
    text = chat.decode(dialogue(settings, chat, ("one", "two"), ["answer"]))
    assert text == "<user>one<assistant>answer<user>two<go>"
    with pytest.raises(ValueError, match="no chat template"):
        dialogue(settings, tokenizer, ("one", "two"), [])


def test_a_long_conversation_keeps_its_end(tokenizer):
    ids = dialogue(replace(SETTINGS, max_length=4), tokenizer, ("a long question",), [])
    assert tokenizer.decode(ids) == "onA:"


def test_what_is_cut_or_empty_is_counted_in_the_file(model, tokenizer, tmp_path, monkeypatch):
    def write(model, tokenizer, prompts, how, seed):
        return [Written("", 6, False) if len(prompt) == 64 else Written("so", 1, True) for prompt in prompts]

    monkeypatch.setattr("experiments.judge.answers.write", write)
    long, settings = Question(7, "writing", ("ask", "a long second question " * 4)), replace(SETTINGS, max_length=64)
    answers(model, tokenizer, tmp_path / "a.jsonl", [*QUESTIONS[:1], long], settings)
    rows = {row["question_id"]: row for row in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())}
    assert {name: rows[7][name] for name in COUNTED} == dict.fromkeys(COUNTED, 1) and not COUNTED.keys() & rows[0]
    assert what_is_missing(tmp_path / "a.jsonl", settings) == [
        "1 prompts were longer than 64 tokens and lost their beginning",
        "1 answers were not finished after 6 tokens",
        "1 answers are empty",
    ]


def test_a_context_that_is_too_short_is_said(model):
    assert beyond_positions(replace(SETTINGS, max_length=2042), model.config) is None
    said = beyond_positions(replace(SETTINGS, max_length=2043), model.config)
    assert said is not None and said.startswith("prompt and answer can be 2,049 tokens, and the model's positions")


def test_the_file_is_in_fastchats_form(model, tokenizer, tmp_path):
    answers(model, tokenizer, tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert {row["question_id"] for row in rows} == set(range(5))
    assert all(row["model_id"] == "m" and len(row["choices"][0]["turns"]) == 2 for row in rows)
    assert rows[0]["generate_params"]["temperature"] == 0.0


def test_a_cut_file_is_continued_with_the_same_answers(model, tokenizer, tmp_path):
    file = tmp_path / "a.jsonl"
    _, whole = answers(model, tokenizer, file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    count, again = answers(model, tokenizer, file)
    assert (count, again) == (2, whole)


@pytest.mark.parametrize(
    "change",
    [
        {"model_id": "other"},
        {"seed": 1},
        {"settings": replace(SETTINGS, generation=GENERATION | {"max_new_tokens": 7})},
        {"settings": replace(SETTINGS, later="Then:{question}A:")},
        {"questions": QUESTIONS[1:]},
    ],
    ids=["model", "seed", "length", "template", "questions"],
)
def test_answers_made_otherwise_are_never_mixed_in(model, tokenizer, tmp_path, change):
    answers(model, tokenizer, tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="of another model, or to other questions"):
        answers(model, tokenizer, tmp_path / "a.jsonl", **change)


def test_a_category_may_have_its_own_temperature(model, tokenizer, tmp_path):
    questions = [*QUESTIONS, Question(9, "math", ("sum 9", "more 9"))]
    warm = replace(SETTINGS, temperatures={"writing": 5.0})
    _, greedy = answers(model, tokenizer, tmp_path / "a.jsonl", questions)
    _, sampled = answers(model, tokenizer, tmp_path / "b.jsonl", questions, warm)
    assert sampled[9] == greedy[9] and sampled[0] != greedy[0]


@pytest.mark.parametrize("name", [file.stem for file in (CONF / "mt_bench").glob("*.yaml")])
def test_every_file_of_settings_is_complete(name):
    from experiments.generation import Generation

    settings = answer_settings(name, CONF / "mt_bench")
    assert Generation(**settings.generation).temperature == 0.0


def test_words_change_a_value_of_the_file():
    words = ["mt_bench.generation.max_new_tokens=7", "mt_bench.temperatures.writing=0.7", "mt_bench.max_length=99"]
    found = answer_settings("alpaca", CONF / "mt_bench", words)
    assert (found.generation["max_new_tokens"], found.temperatures, found.max_length) == (7, {"writing": 0.7}, 99)


@pytest.mark.parametrize("word", ["mt_bench.lenght=9", "mt_bench.generation.beams=4", "mt_bench.first.x=1"])
def test_an_unknown_key_is_a_sentence(word):
    with pytest.raises(ValueError, match="no such key"):
        answer_settings("alpaca", CONF / "mt_bench", [word])


def test_an_unknown_template_is_a_sentence():
    with pytest.raises(ValueError, match="template none: there are alpaca, chat"):
        answer_settings("none", CONF / "mt_bench")
